-- Ranges: parts of a load that several connections, of several workers, read side by side.

-- The rows of a load after (xid, key) up to (upto_xid, upto_key), in the order of capture, with keys as in sync_cursor. One
-- range of a load has no end yet: what was not cut. A batch locks its range for its one transaction, so that whoever dies has
-- given it back. `progress`: what was committed and is not in sync_state.progress yet. The load's own cursor is never beyond a
-- row that is in an open range.
CREATE TABLE sync_range (
    table_name text NOT NULL,
    number     integer NOT NULL,
    xid        bigint NOT NULL,
    key        text[],
    upto_xid   bigint,
    upto_key   text[],
    done       boolean NOT NULL DEFAULT false,
    captured   bigint NOT NULL DEFAULT 0,
    batches    integer NOT NULL DEFAULT 0,
    progress   jsonb NOT NULL DEFAULT '{}',
    lane       text,
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (table_name, number)
);

-- No lane begins a batch before: what was written meanwhile is being applied.
ALTER TABLE sync_state ADD COLUMN lanes_after timestamptz;

-- Adds a statement's changes, in its transaction; those of a lane are added at its end, which it sets by syncline.lane: until the
-- commit no other transaction can change the same counts.
CREATE OR REPLACE FUNCTION sync_keep_counts() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    name    text := TG_ARGV[0];
    refused text := TG_ARGV[1];
    added   text := format('SELECT %s AS name, %s AS refused, 1 AS entries FROM new_rows', name, refused);
    gone    text := format('SELECT %s AS name, %s AS refused, -1 AS entries FROM old_rows', name, refused);
    changed text;
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        EXECUTE format('UPDATE %I.sync_count SET entries = 0 WHERE counted = $1', TG_TABLE_SCHEMA) USING TG_TABLE_NAME;
        RETURN NULL;
    END IF;
    changed := format(
        'SELECT $1, name, refused, sum(entries) FROM (%s) AS changed GROUP BY name, refused HAVING sum(entries) <> 0',
        CASE TG_OP WHEN 'INSERT' THEN added WHEN 'DELETE' THEN gone ELSE added || ' UNION ALL ' || gone END
    );
    IF current_setting('syncline.lane', true) = 'on' THEN
        EXECUTE 'INSERT INTO pg_temp.sync_counted (counted, name, refused, entries) ' || changed USING TG_TABLE_NAME;
        RETURN NULL;
    END IF;
    EXECUTE format(
        'INSERT INTO %I.sync_count AS c (counted, name, refused, entries) %s ORDER BY name, refused'
        ' ON CONFLICT (counted, name, refused) DO UPDATE SET entries = c.entries + excluded.entries',
        TG_TABLE_SCHEMA, changed
    ) USING TG_TABLE_NAME;
    RETURN NULL;
END
$$;

-- A worker's role reads and changes them.
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
        EXECUTE format('GRANT %s ON sync_range TO %s', given.privileges, given.whom);
    END LOOP;
END
$$;
