-- The engine's books in a graph-db, for any table map. Runs with search_path set to the graph's schema.
-- IF NOT EXISTS, because the first builds made them together with the knowledge graph's tables.

CREATE SCHEMA IF NOT EXISTS syncline;

-- The id of a TEXT key: the first 16 bytes of its SHA-256, with the version byte set to 0x80 (UUIDv8,
-- RFC 9562) and the variant byte to 0x80. The same function in Python: syncline.engine.keys.key_uuid.
-- decode(replace(…), 'escape') is convert_to(key, 'UTF8') in immutable clothes: only an immutable body is
-- inlined into the caller's query, which is three times as fast, and allowed in a generated column.
CREATE OR REPLACE FUNCTION syncline.key_uuid(key text) RETURNS uuid
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN encode(
    substr(
        set_byte(set_byte(sha256(decode(replace(key, '\', '\\'), 'escape')), 6, 128), 8, 128), 1, 16
    ), 'hex'
)::uuid;

-- One row: who may write, what cluster the cursors are of, and what no event has announced yet.
CREATE TABLE IF NOT EXISTS sync_state (
    only_row          boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    fence             bigint NOT NULL DEFAULT 0,
    holder_run_id     text,
    write_cluster     text,
    behind_since      timestamptz,
    -- What the latest run has committed so far, so that a resumed attempt reports and announces the whole
    -- run: {"run_id", "batches", "tables", "untold"} (syncline.engine.ledger).
    progress          jsonb NOT NULL DEFAULT '{}'
);
INSERT INTO sync_state DEFAULT VALUES ON CONFLICT DO NOTHING;

-- Where capture stands: everything before (xid, key) of this table has been committed here.
-- A null key means "everything of a transaction before xid".
CREATE TABLE IF NOT EXISTS sync_cursor (
    table_name text PRIMARY KEY,
    xid        bigint NOT NULL,
    key        text[]
);

-- Rows that wait for a parent. The image is the staged row; a newer version of the row replaces it.
CREATE TABLE IF NOT EXISTS sync_parked_row (
    table_name    text NOT NULL,
    key           text[] NOT NULL,
    image         jsonb NOT NULL,
    waits_for_table text NOT NULL,
    waits_for     uuid NOT NULL,
    waits_for_key text NOT NULL,
    since         timestamptz NOT NULL DEFAULT now(),
    released      boolean NOT NULL DEFAULT false,
    PRIMARY KEY (table_name, key)
);
CREATE INDEX IF NOT EXISTS sync_parked_row_waits ON sync_parked_row (waits_for) WHERE NOT released;
CREATE INDEX IF NOT EXISTS sync_parked_row_released ON sync_parked_row (table_name) WHERE released;

-- Links and optional references whose row has landed and whose other end has not.
-- `name` is the link table, or the referring column of `table_name`.
CREATE TABLE IF NOT EXISTS sync_parked_reference (
    table_name    text NOT NULL,
    name          text NOT NULL,
    owner         uuid NOT NULL,
    waits_for_table text NOT NULL,
    waits_for     uuid NOT NULL,
    waits_for_key text NOT NULL,
    since         timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (table_name, owner, name, waits_for)
);
CREATE INDEX IF NOT EXISTS sync_parked_reference_waits ON sync_parked_reference (waits_for);

-- Points that the vector store has to learn about, in order of their last change.
CREATE TABLE IF NOT EXISTS sync_outbox (
    collection text NOT NULL,
    point_id   uuid NOT NULL,
    seq        bigserial NOT NULL,
    queued_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (collection, point_id)
);
CREATE INDEX IF NOT EXISTS sync_outbox_seq ON sync_outbox (seq);

-- What the vector store has: the hash of the text that was embedded, and by which service.
CREATE TABLE IF NOT EXISTS sync_vector (
    collection text NOT NULL,
    point_id   uuid NOT NULL,
    text_hash  bytea NOT NULL,
    embedding  text NOT NULL,
    PRIMARY KEY (collection, point_id)
);
