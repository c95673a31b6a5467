-- Deletes, dead letters, rows asked for by key, retries of vectors, and who did what by hand.
-- Runs with search_path set to the graph's schema.

-- The id of a row in the books, whatever its key: of one column, the id that its row has; of several, the id of
-- their ids. Long keys fit no index; their ids do. The same function in Python: syncline.engine.keys.row_uuid.
CREATE OR REPLACE FUNCTION syncline.row_uuid(key text[]) RETURNS uuid
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN CASE WHEN cardinality(key) = 1 THEN syncline.key_uuid(key[1])
    ELSE syncline.key_uuid((
        SELECT string_agg(syncline.key_uuid(part)::text, '' ORDER BY place)
        FROM unnest(key) WITH ORDINALITY AS parts (part, place)
    )) END;

-- Deleted keys of all tables are one stream beside the tables' own: sync_cursor has one row for it, whose table_name is
-- 'sync_tombstone' and whose key is the number (seq) of the last tombstone read.

-- The runs that wrote: rows name theirs by its fence (sync_run).
CREATE TABLE sync_run (
    fence            bigint PRIMARY KEY,
    run_id           text NOT NULL,
    workflow_id      text NOT NULL,
    attempt          integer NOT NULL,
    provider         text NOT NULL,
    provider_version text,
    taken_at         timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX sync_run_taken_at ON sync_run (taken_at);

ALTER TABLE sync_parked_row ADD COLUMN row_id uuid;
UPDATE sync_parked_row SET row_id = syncline.row_uuid(key);
ALTER TABLE sync_parked_row DROP CONSTRAINT sync_parked_row_pkey;
ALTER TABLE sync_parked_row ADD PRIMARY KEY (table_name, row_id);

-- Rows that the next cycle reads again by key, whatever the cursor says, and makes right: a row that the
-- write-db has is merged, one that it has no longer is removed.
CREATE TABLE sync_requeue (
    table_name text NOT NULL,
    row_id     uuid NOT NULL,
    key        text[] NOT NULL,
    reason     text NOT NULL,
    queued_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (table_name, row_id)
);

-- Rows that the graph-db refused. A newer version of the row, or its end, takes its dead letter with it.
CREATE TABLE sync_dead_letter (
    table_name      text NOT NULL,
    row_id          uuid NOT NULL,
    key             text[] NOT NULL,
    version         bigint NOT NULL,          -- sync_xid of the version that was refused
    sqlstate        text NOT NULL,
    message         text NOT NULL,            -- Postgres's own, which may quote values of the row
    constraint_name text,
    fingerprint     text NOT NULL,            -- equal for errors that differ in the row's values alone
    attempts        integer NOT NULL DEFAULT 1,
    first_failed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_failed_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    next_retry_at   timestamptz,              -- null: dead, until somebody asks for a retry or discards it
    run_id          text NOT NULL,
    PRIMARY KEY (table_name, row_id)
);
CREATE INDEX sync_dead_letter_due ON sync_dead_letter (next_retry_at) WHERE next_retry_at IS NOT NULL;
CREATE INDEX sync_dead_letter_fingerprint ON sync_dead_letter (fingerprint);

-- What people did by hand: who, when, why, and to which rows.
CREATE TABLE sync_audit (
    number      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    who         text NOT NULL,
    action      text NOT NULL,
    why         text NOT NULL,
    table_name  text,
    key         text[],
    fingerprint text,
    rows        bigint NOT NULL
);

-- A point that is refused waits by itself: it has an error, and a time for the next try (null: dead, until its row
-- changes). Those without an error are owed now. A collection that cannot be written waits as a whole.
ALTER TABLE sync_outbox ADD COLUMN attempts integer NOT NULL DEFAULT 0;
ALTER TABLE sync_outbox ADD COLUMN next_retry_at timestamptz;
ALTER TABLE sync_outbox ADD COLUMN error text;
DROP INDEX sync_outbox_seq;
CREATE INDEX sync_outbox_owed ON sync_outbox (collection, seq) WHERE error IS NULL;
CREATE INDEX sync_outbox_refused ON sync_outbox (collection, next_retry_at) WHERE error IS NOT NULL;

CREATE TABLE sync_vector_delay (
    collection    text PRIMARY KEY,
    attempts      integer NOT NULL,
    since         timestamptz NOT NULL DEFAULT clock_timestamp(),
    next_retry_at timestamptz NOT NULL,
    error         text NOT NULL
);

-- The embedding service whose vectors a collection has or is owed; with another one in force, all are owed again.
CREATE TABLE sync_vector_embedding (
    collection text PRIMARY KEY,
    embedding  text NOT NULL
);

-- Points carry a hash of their row now, and so shall those that were written before.
INSERT INTO sync_outbox (collection, point_id) SELECT collection, point_id FROM sync_vector ON CONFLICT DO NOTHING;

-- Runs a statement over the rows of a stage between two of them, and tells instead of failing: finding one refused
-- row among thousands then costs one round trip for each try, and no statement to take it back.
CREATE OR REPLACE FUNCTION syncline.attempt(
    statement text, low tid, high tid,
    OUT changed bigint, OUT state text, OUT message text, OUT constraint_name text
) LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE statement INTO changed USING low, high;
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, constraint_name = CONSTRAINT_NAME;
END
$$;
