-- Trigger functions and triggers.

-- name: version_body
BEGIN
    NEW.sync_xid := pg_catalog.pg_current_xact_id();
    RETURN NEW;
END

-- name: shared_version_body
-- The function that stamped the rows of all schemas in earlier releases.
BEGIN
    NEW.sync_xid := pg_current_xact_id();
    RETURN NEW;
END

-- name: function
CREATE OR REPLACE FUNCTION @{function}() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER@{settings} AS @{body};
REVOKE ALL ON FUNCTION @{function}() FROM PUBLIC

-- name: version_condition
-- A row that the column's default has stamped needs no function call.
NEW.sync_xid IS DISTINCT FROM pg_current_xact_id()

-- name: trigger
CREATE TRIGGER @{name} @{timing} ON @{table} @{rows} EXECUTE FUNCTION @{function}()

-- name: tombstone_rows
BEGIN
    IF TG_OP <> 'TRUNCATE' THEN
        INSERT INTO @{tombstones} (source_table, key@{whose}) VALUES (@{source}, @{old_key}@{old_tenant});
    ELSE
        EXECUTE 'INSERT INTO @{tombstones_text} (source_table, key@{whose}) SELECT $1, @{row_key_text}@{row_tenant_text} FROM '
            || TG_RELID::regclass || ' r' USING @{source};
    END IF;
    RETURN NULL;
END

-- name: tombstone_sets
-- The first keys of a statement are a row each; of one that deletes many, the others are packed, up to a thousand in an
-- array of keys: an INSERT of each would cost the writer eight times the DELETE.
DECLARE
    written bigint;
BEGIN
    IF TG_OP OPERATOR(pg_catalog.=) 'DELETE' THEN
        INSERT INTO @{tombstones} (source_table, key@{whose}) SELECT @{source}, @{row_key}@{row_tenant} FROM sync_old_rows r LIMIT 8;
        GET DIAGNOSTICS written = ROW_COUNT;
        IF written OPERATOR(pg_catalog.=) 8 THEN
            INSERT INTO @{tombstones} (source_table, key@{whose}) SELECT @{source}, @{packed} FROM (
                SELECT @{row_key} AS key@{row_tenant_named}, pg_catalog.row_number() OVER () OPERATOR(pg_catalog./) 1000 AS pack
                FROM (SELECT * FROM sync_old_rows OFFSET 8) r
            ) p GROUP BY p.pack@{packed_tenant};
        END IF;
    ELSIF TG_OP OPERATOR(pg_catalog.=) 'UPDATE' THEN
        INSERT INTO @{tombstones} (source_table, key@{whose}) VALUES (@{source}, @{old_key}@{old_tenant});
    ELSE
        INSERT INTO @{tombstones} (source_table, key@{whose}) SELECT @{source}, @{packed} FROM (
            SELECT @{row_key} AS key@{row_tenant_named}, pg_catalog.row_number() OVER () OPERATOR(pg_catalog./) 1000 AS pack FROM @{table} r
        ) p GROUP BY p.pack@{packed_tenant};
    END IF;
    RETURN NULL;
END

-- name: earlier_tombstone_sets
-- The function of earlier releases: a row for each key.
BEGIN
    IF TG_OP = 'DELETE' THEN
        INSERT INTO @{tombstones} (source_table, key@{whose}) SELECT @{source}, @{row_key}@{row_tenant} FROM sync_old_rows r;
    ELSIF TG_OP = 'UPDATE' THEN
        INSERT INTO @{tombstones} (source_table, key@{whose}) VALUES (@{source}, @{old_key}@{old_tenant});
    ELSE
        INSERT INTO @{tombstones} (source_table, key@{whose}) SELECT @{source}, @{row_key}@{row_tenant} FROM @{table} r;
    END IF;
    RETURN NULL;
END

-- name: notify_body
-- It has the writer's search_path, since to set another would cost more than a look: every name and operator is qualified.
-- First what needs no query: that a mute ends within the next five seconds, by the sequence that has its end. In as few
-- functions as can be: each is looked up anew in every transaction, which is most of what a muted writer pays.
BEGIN
    IF pg_catalog.width_bucket(
        pg_catalog.pg_sequence_last_value('@{quiet}')
            OPERATOR(pg_catalog.-) (pg_catalog.date_part('epoch', pg_catalog.clock_timestamp()) OPERATOR(pg_catalog.*) 1000),
        0, 5000, 1
    ) OPERATOR(pg_catalog.=) 1 THEN
        RETURN NULL;
    END IF;
    IF pg_catalog.pg_current_xact_id_if_assigned() IS NOT NULL
        AND pg_catalog.current_setting('max_prepared_transactions') OPERATOR(pg_catalog.=) '0'
    THEN
        PERFORM FROM @{state} s
        WHERE s.wanted AND (
            pg_catalog.current_setting('transaction_isolation') OPERATOR(pg_catalog.<>) 'read committed'
            OR NOT (
                s.muted_until OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp()
                AND s.muted_until OPERATOR(pg_catalog.<)
                    (pg_catalog.clock_timestamp() OPERATOR(pg_catalog.+) '5 seconds'::pg_catalog.interval)
            ) AND EXISTS (
                SELECT FROM syncline.listener l WHERE l.until OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp()
            )
        );
        IF FOUND THEN
            PERFORM pg_catalog.pg_notify(
                '@{channel}', pg_catalog.pg_current_xact_id()::pg_catalog.text OPERATOR(pg_catalog.||) ' @{schema}'
            );
        END IF;
    END IF;
    RETURN NULL;
END

-- name: notify_state
-- One row. Writers are muted for a moment while a run that is about to begin will see what they write.
CREATE TABLE @{state} (
    one          boolean PRIMARY KEY DEFAULT true CHECK (one),
    wanted       boolean NOT NULL DEFAULT true,
    muted_until timestamptz NOT NULL DEFAULT '-infinity'
);
INSERT INTO @{state} DEFAULT VALUES

-- name: quiet
-- The end of the mute once more, in milliseconds since 1970: a writer reads a sequence in a sixth of the time of a row.
CREATE SEQUENCE @{quiet} OWNED BY @{state}.one

-- name: listener
-- The listener, the end of its lease, and the transaction id below which it has missed nothing. Read by the
-- notification triggers of every graph of the database, whichever role has adopted it: otherwise its writers'
-- statements would fail.
CREATE SCHEMA IF NOT EXISTS syncline;
GRANT USAGE ON SCHEMA syncline TO PUBLIC;
CREATE TABLE IF NOT EXISTS syncline.listener (
    name        text PRIMARY KEY,
    until       timestamptz NOT NULL,
    heard_below xid8 NOT NULL
);
GRANT SELECT ON syncline.listener TO PUBLIC

-- name: token_body
-- Which transaction this is, of which running server and database, and the oldest that is open: one with a lower id may
-- end later and overwrite rows of this one. Assigns the transaction its id; the same in its subtransactions, but for
-- the last number. It runs as its owner: a writer need not be allowed to identify the cluster.
SELECT s.system_identifier || '.' || d.oid || '.' || (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint
    || '.' || pg_current_xact_id() || '.' || least(pg_snapshot_xmin(pg_current_snapshot()), pg_current_xact_id())
FROM pg_control_system() AS s, pg_database d WHERE d.datname = current_database()

-- name: token
CREATE SCHEMA IF NOT EXISTS syncline;
GRANT USAGE ON SCHEMA syncline TO PUBLIC;
CREATE OR REPLACE FUNCTION syncline.token() RETURNS text
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $token$@{body}$token$
