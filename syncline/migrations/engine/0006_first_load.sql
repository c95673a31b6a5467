-- Foreign keys and indexes that the first load of empty tables put off, until they are put back.

-- While any is owed: the transaction below which everything belongs to that load, and when the next cycle tries to put
-- them back.
ALTER TABLE sync_state
    ADD COLUMN load_below bigint,
    ADD COLUMN load_due_at timestamptz;

-- The counts of a table's rows are made first. `statements` put an object back, `validate` checks the rows that are there; names are those of the graph's own schema, which
-- may be renamed. Dropped and listed, or put back and taken off the list, in one transaction.
CREATE TABLE sync_owed (
    number      integer PRIMARY KEY,
    kind        text NOT NULL CHECK (kind IN ('counts', 'index', 'foreign key')),
    table_name  text NOT NULL,
    name        text NOT NULL,
    statements  text[] NOT NULL,
    validate    text,
    dropped_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- The first of these is there again: only the rows are not checked yet.
    there       boolean NOT NULL DEFAULT false,
    tries       integer NOT NULL DEFAULT 0,
    problem     text
);

-- The tables that Syncline has made for a map (`syncline map propose --create-target make`).
CREATE TABLE sync_made (
    table_name text PRIMARY KEY
);

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
        EXECUTE format('GRANT %s ON sync_owed, sync_made TO %s', given.privileges, given.whom);
    END LOOP;
END
$$;
