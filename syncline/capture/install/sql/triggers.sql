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
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp@{settings} AS @{body};
REVOKE ALL ON FUNCTION @{function}() FROM PUBLIC

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
BEGIN
    IF pg_current_xact_id_if_assigned() IS NOT NULL
        AND current_setting('max_prepared_transactions') = '0'
        AND EXISTS (
            SELECT FROM @{state} s
            WHERE s.wanted AND (
                current_setting('transaction_isolation') <> 'read committed'
                OR EXISTS (SELECT FROM syncline.listener l WHERE l.until > clock_timestamp())
                    AND NOT (
                        s.muted_until > clock_timestamp()
                        AND s.muted_until < clock_timestamp() + interval '5 seconds'
                    )
            )
        )
    THEN
        PERFORM pg_notify('@{channel}', pg_current_xact_id() || ' @{schema}');
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
-- Which transaction this is, of which running server and database. Assigns the transaction its id; the same in its
-- subtransactions. It runs as its owner: a writer need not be allowed to identify the cluster.
SELECT s.system_identifier || '.' || d.oid || '.' || (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint
    || '.' || pg_current_xact_id()
FROM pg_control_system() AS s, pg_database d WHERE d.datname = current_database()

-- name: token
CREATE SCHEMA IF NOT EXISTS syncline;
GRANT USAGE ON SCHEMA syncline TO PUBLIC;
CREATE OR REPLACE FUNCTION syncline.token() RETURNS text
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $token$@{body}$token$
