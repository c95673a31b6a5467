-- The graph-db side of a knowledge graph: UUID keys and foreign keys. The engine's books come before it.
-- Runs with search_path set to the graph's schema.

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
