-- A second embedding model of a graph, beside its main one, while the model changes. Each has a generation of
-- collections with entries of its own; those of the second are listed as '{collection}@second'.

-- The generation of the main collections, and the number of the last that was started: the first is 1.
ALTER TABLE sync_state
    ADD COLUMN vector_generation integer NOT NULL DEFAULT 1,
    ADD COLUMN vector_generations integer NOT NULL DEFAULT 1;

-- The second generation, if there is one.
CREATE TABLE sync_second (
    only_row    boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    generation  integer NOT NULL CHECK (generation > 1),
    started_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- When it first owed nothing.
    filled_at   timestamptz,
    -- Readers look at it since; null: at the main one.
    switched_at timestamptz
);

-- A worker's role reads and changes it.
DO $$
DECLARE
    given record;
BEGIN
    FOR given IN
        SELECT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(r.rolname) END AS whom,
               concat_ws(', ', 'SELECT', string_agg(a.privilege_type, ', ') FILTER (WHERE a.privilege_type <> 'SELECT'))
                   AS privileges
        FROM pg_class c CROSS JOIN aclexplode(c.relacl) a LEFT JOIN pg_roles r ON r.oid = a.grantee
        WHERE c.oid = to_regclass('sync_outbox') AND a.grantee <> c.relowner AND (a.grantee = 0 OR r.oid IS NOT NULL)
          AND a.privilege_type IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE')
        GROUP BY 1 ORDER BY 1
    LOOP
        EXECUTE format('GRANT %s ON sync_second TO %s', given.privileges, given.whom);
    END LOOP;
END
$$;

-- Queues for the second generation what is queued for the main one, whoever queues it. The schema is that of
-- the table, as for sync_keep_counts. Its own entries end here: a statement without others queues nothing.
-- It runs as its owner: a role that may only insert entries cannot replace those that wait. So nobody else may make
-- a trigger of it, on tables of his own.
CREATE FUNCTION sync_keep_second() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    queued constant text := CASE TG_OP
        WHEN 'INSERT' THEN 'new_rows n WHERE n.collection NOT LIKE ''%@second'''
        -- An entry that is queued again has another seq.
        ELSE 'new_rows n JOIN old_rows o ON o.collection = n.collection AND o.point_id = n.point_id'
             ' WHERE n.seq <> o.seq AND n.collection NOT LIKE ''%@second'''
    END;
    found boolean;
BEGIN
    EXECUTE format('SELECT EXISTS (SELECT FROM %I.sync_second)', TG_TABLE_SCHEMA) INTO found;
    IF found THEN
        EXECUTE 'SELECT EXISTS (SELECT FROM ' || queued || ')' INTO found;
    END IF;
    IF found THEN
        EXECUTE format('INSERT INTO %I.sync_outbox (collection, point_id, target_id)', TG_TABLE_SCHEMA)
            || ' SELECT n.collection || ''@second'', n.point_id, n.target_id FROM ' || queued
            || ' ORDER BY n.seq'
               ' ON CONFLICT (collection, point_id) DO UPDATE SET'
               ' seq = excluded.seq, queued_at = excluded.queued_at, attempts = 0, next_retry_at = NULL, error = NULL,'
               ' target_id = excluded.target_id';
    END IF;
    RETURN NULL;
END
$$;
REVOKE EXECUTE ON FUNCTION sync_keep_second() FROM PUBLIC;

CREATE TRIGGER sync_second_added AFTER INSERT ON sync_outbox REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION sync_keep_second();
CREATE TRIGGER sync_second_changed AFTER UPDATE ON sync_outbox REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION sync_keep_second();
