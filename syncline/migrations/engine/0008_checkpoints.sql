-- Checkpoints: what to go back to when the write-db turns out to have lost its last transactions, and how many rows a
-- comparison of keys may remove unasked.

-- `checkpoint_at`: when the newest checkpoint was taken; null: there is none. `noted_fence`: the last cycle that noted
-- what it read in sync_recent; if that is not the fence, a worker of an earlier version came in between.
ALTER TABLE sync_state
    ADD COLUMN checkpoint_at timestamptz,
    ADD COLUMN noted_fence bigint;

-- The token that a run has left in the write-db ("branch/number/token"), before it read anything.
ALTER TABLE sync_run ADD COLUMN position text;

-- The cursors at the moment when run `fence` left its token: a write-db with that token has everything that had been
-- read by then. What was read later is in sync_recent after `seq`. `keys`: how many keys were noted up to it, of all
-- times. `cursors`: {"table": [xid, key as in sync_cursor]}.
CREATE TABLE sync_checkpoint (
    fence   bigint PRIMARY KEY,
    seq     bigint NOT NULL,
    keys    bigint NOT NULL,
    at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    cursors jsonb NOT NULL
);

-- The keys read since the oldest checkpoint, a row for each batch and table: [[part, …], …].
CREATE TABLE sync_recent (
    seq        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    table_name text NOT NULL,
    number     integer NOT NULL,
    keys       jsonb NOT NULL
);

-- How many keys a comparison has looked at; and how many of them were gone, if these are too many: an operator decides.
ALTER TABLE sync_comparison
    ADD COLUMN seen bigint NOT NULL DEFAULT 0,
    ADD COLUMN withheld bigint;

-- The rows that a comparison has found gone, until it has seen all of them.
CREATE TABLE sync_absent (
    table_name text NOT NULL,
    row_id     uuid NOT NULL,
    key        text[] NOT NULL,
    PRIMARY KEY (table_name, row_id)
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
        EXECUTE format('GRANT %s ON sync_checkpoint, sync_recent, sync_absent TO %s', given.privileges, given.whom);
        -- Who only looks on has no need of it.
        IF given.privileges LIKE '%INSERT%' THEN
            EXECUTE format('GRANT SELECT ON SEQUENCE sync_recent_seq_seq TO %s', given.whom);
        END IF;
    END LOOP;
END
$$;
