-- The graph-db side of one graph: UUID keys, foreign keys, and the engine's own bookkeeping (sync_*).
-- Runs with search_path set to the graph's schema.

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

CREATE TABLE raw_sources (
    id                uuid PRIMARY KEY,
    key               text NOT NULL,
    uri               text,
    title             text,
    content           text,
    content_hash      text,
    content_type      text,
    provider_id       text,
    provider_metadata jsonb,
    canonical_url     text,
    doi               text,
    fetch_status      text NOT NULL,
    fetch_error       text,
    fetched_at        timestamptz,
    created_at        timestamptz NOT NULL,
    updated_at        timestamptz NOT NULL,
    sync_version      bigint NOT NULL
);

CREATE TABLE facts (
    id           uuid PRIMARY KEY,
    key          text NOT NULL,
    content      text NOT NULL,
    fact_type    text NOT NULL,
    metadata     jsonb,
    created_at   timestamptz NOT NULL,
    updated_at   timestamptz NOT NULL,
    sync_version bigint NOT NULL
);

CREATE TABLE fact_sources (
    fact_id         uuid NOT NULL REFERENCES facts (id) ON DELETE CASCADE,
    raw_source_id   uuid NOT NULL REFERENCES raw_sources (id) ON DELETE CASCADE,
    context_snippet text,
    attribution     text,
    created_at      timestamptz NOT NULL,
    updated_at      timestamptz NOT NULL,
    sync_version    bigint NOT NULL,
    PRIMARY KEY (fact_id, raw_source_id)
);
CREATE INDEX fact_sources_raw_source_id ON fact_sources (raw_source_id);

CREATE TABLE nodes (
    id                uuid PRIMARY KEY,
    key               text NOT NULL,
    concept           text NOT NULL,
    node_type         text NOT NULL,
    definition        text,
    parent_id         uuid REFERENCES nodes (id) ON DELETE SET NULL,
    source_concept_id uuid REFERENCES nodes (id) ON DELETE SET NULL,
    visibility        text NOT NULL,
    creator_id        text,
    metadata          jsonb,
    created_at        timestamptz NOT NULL,
    updated_at        timestamptz NOT NULL,
    sync_version      bigint NOT NULL
);
CREATE INDEX nodes_parent_id ON nodes (parent_id) WHERE parent_id IS NOT NULL;
CREATE INDEX nodes_source_concept_id ON nodes (source_concept_id) WHERE source_concept_id IS NOT NULL;

CREATE TABLE node_facts (
    node_id uuid NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
    fact_id uuid NOT NULL REFERENCES facts (id) ON DELETE CASCADE,
    PRIMARY KEY (node_id, fact_id)
);
CREATE INDEX node_facts_fact_id ON node_facts (fact_id);

CREATE TABLE edges (
    id                uuid PRIMARY KEY,
    key               text NOT NULL,
    source_node_id    uuid NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
    target_node_id    uuid NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
    relationship_type text NOT NULL,
    directed          boolean NOT NULL,
    weight            double precision NOT NULL,
    justification     text,
    visibility        text NOT NULL,
    creator_id        text,
    metadata          jsonb,
    created_at        timestamptz NOT NULL,
    updated_at        timestamptz NOT NULL,
    sync_version      bigint NOT NULL
);
CREATE INDEX edges_source_node_id ON edges (source_node_id);
CREATE INDEX edges_target_node_id ON edges (target_node_id);

CREATE TABLE edge_facts (
    edge_id uuid NOT NULL REFERENCES edges (id) ON DELETE CASCADE,
    fact_id uuid NOT NULL REFERENCES facts (id) ON DELETE CASCADE,
    PRIMARY KEY (edge_id, fact_id)
);
CREATE INDEX edge_facts_fact_id ON edge_facts (fact_id);

-- One row: who may write, what cluster the cursors are of, and what no event has announced yet.
CREATE TABLE sync_state (
    only_row          boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    fence             bigint NOT NULL DEFAULT 0,
    holder_run_id     text,
    write_cluster     text,
    behind_since      timestamptz,
    -- What the latest run has committed so far, so that a resumed attempt reports and announces the whole
    -- run: {"run_id", "batches", "tables", "untold"} (syncline.engine.ledger).
    progress          jsonb NOT NULL DEFAULT '{}'
);
INSERT INTO sync_state DEFAULT VALUES;

-- Where capture stands: everything before (xid, key) of this table has been committed here.
-- A null key means "everything of a transaction before xid".
CREATE TABLE sync_cursor (
    table_name text PRIMARY KEY,
    xid        bigint NOT NULL,
    key        text[]
);

-- Rows that wait for a parent. The image is the staged row; a newer version of the row replaces it.
CREATE TABLE sync_parked_row (
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
CREATE INDEX sync_parked_row_waits ON sync_parked_row (waits_for) WHERE NOT released;
CREATE INDEX sync_parked_row_released ON sync_parked_row (table_name) WHERE released;

-- Links and optional references whose row has landed and whose other end has not.
-- `name` is the link table, or the referring column of `table_name`.
CREATE TABLE sync_parked_reference (
    table_name    text NOT NULL,
    name          text NOT NULL,
    owner         uuid NOT NULL,
    waits_for_table text NOT NULL,
    waits_for     uuid NOT NULL,
    waits_for_key text NOT NULL,
    since         timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (table_name, owner, name, waits_for)
);
CREATE INDEX sync_parked_reference_waits ON sync_parked_reference (waits_for);

-- Points that the vector store has to learn about, in order of their last change.
CREATE TABLE sync_outbox (
    collection text NOT NULL,
    point_id   uuid NOT NULL,
    seq        bigserial NOT NULL,
    queued_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (collection, point_id)
);
CREATE INDEX sync_outbox_seq ON sync_outbox (seq);

-- What the vector store has: the hash of the text that was embedded, and by which service.
CREATE TABLE sync_vector (
    collection text NOT NULL,
    point_id   uuid NOT NULL,
    text_hash  bytea NOT NULL,
    embedding  text NOT NULL,
    PRIMARY KEY (collection, point_id)
);
