-- The write-db side of one graph: no foreign keys, TEXT keys, shaped for many concurrent writers.
-- Runs with search_path set to the graph's schema.

CREATE SCHEMA IF NOT EXISTS syncline;

-- Stamps every row version with the id of the transaction that wrote it. A timestamp would lie: it is taken
-- when a transaction starts, shared by many rows, and skewed between writers. A transaction id together with
-- the snapshot's xmin says exactly which rows can no longer change behind a reader's back.
CREATE OR REPLACE FUNCTION syncline.capture_version() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    NEW.sync_xid := pg_current_xact_id();
    RETURN NEW;
END
$$;

CREATE TABLE write_raw_sources (
    id                text PRIMARY KEY,
    uri               text,
    title             text,
    content           text,
    content_hash      text,
    content_type      text,
    provider_id       text,
    provider_metadata jsonb,
    canonical_url     text,
    doi               text,
    fetch_status      text NOT NULL DEFAULT 'pending',
    fetch_error       text,
    fetched_at        timestamptz,
    created_at        timestamptz NOT NULL DEFAULT now(),
    updated_at        timestamptz NOT NULL DEFAULT now(),
    sync_xid          xid8 NOT NULL DEFAULT pg_current_xact_id()
);

CREATE TABLE write_facts (
    id           text PRIMARY KEY,
    content      text NOT NULL,
    fact_type    text NOT NULL DEFAULT 'statement',
    dedup_status text NOT NULL DEFAULT 'pending',
    metadata     jsonb,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    sync_xid     xid8 NOT NULL DEFAULT pg_current_xact_id()
);

CREATE TABLE write_fact_sources (
    fact_id         text NOT NULL,
    raw_source_id   text NOT NULL,
    context_snippet text,
    attribution     text,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    sync_xid        xid8 NOT NULL DEFAULT pg_current_xact_id(),
    PRIMARY KEY (fact_id, raw_source_id)
);

CREATE TABLE write_nodes (
    id                text PRIMARY KEY,
    concept           text NOT NULL,
    node_type         text NOT NULL DEFAULT 'concept',
    definition        text,
    parent_id         text,
    source_concept_id text,
    fact_ids          text[] NOT NULL DEFAULT '{}',
    visibility        text NOT NULL DEFAULT 'public',
    creator_id        text,
    metadata          jsonb,
    created_at        timestamptz NOT NULL DEFAULT now(),
    updated_at        timestamptz NOT NULL DEFAULT now(),
    sync_xid          xid8 NOT NULL DEFAULT pg_current_xact_id()
);

CREATE TABLE write_edges (
    id                text PRIMARY KEY,
    source_node_id    text NOT NULL,
    target_node_id    text NOT NULL,
    relationship_type text NOT NULL,
    directed          boolean NOT NULL DEFAULT true,
    weight            double precision NOT NULL DEFAULT 1.0,
    justification     text,
    fact_ids          text[] NOT NULL DEFAULT '{}',
    visibility        text NOT NULL DEFAULT 'public',
    creator_id        text,
    metadata          jsonb,
    created_at        timestamptz NOT NULL DEFAULT now(),
    updated_at        timestamptz NOT NULL DEFAULT now(),
    sync_xid          xid8 NOT NULL DEFAULT pg_current_xact_id()
);

-- Keyset order of capture. Keys are compared bytewise, so that both databases agree whatever their locale.
CREATE INDEX write_raw_sources_sync ON write_raw_sources (sync_xid, id COLLATE "C");
CREATE INDEX write_facts_sync ON write_facts (sync_xid, id COLLATE "C");
CREATE INDEX write_fact_sources_sync
    ON write_fact_sources (sync_xid, fact_id COLLATE "C", raw_source_id COLLATE "C");
CREATE INDEX write_nodes_sync ON write_nodes (sync_xid, id COLLATE "C");
CREATE INDEX write_edges_sync ON write_edges (sync_xid, id COLLATE "C");

CREATE TRIGGER capture_version BEFORE INSERT OR UPDATE ON write_raw_sources
    FOR EACH ROW EXECUTE FUNCTION syncline.capture_version();
CREATE TRIGGER capture_version BEFORE INSERT OR UPDATE ON write_facts
    FOR EACH ROW EXECUTE FUNCTION syncline.capture_version();
CREATE TRIGGER capture_version BEFORE INSERT OR UPDATE ON write_fact_sources
    FOR EACH ROW EXECUTE FUNCTION syncline.capture_version();
CREATE TRIGGER capture_version BEFORE INSERT OR UPDATE ON write_nodes
    FOR EACH ROW EXECUTE FUNCTION syncline.capture_version();
CREATE TRIGGER capture_version BEFORE INSERT OR UPDATE ON write_edges
    FOR EACH ROW EXECUTE FUNCTION syncline.capture_version();
