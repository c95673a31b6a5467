-- The graph-db side of a knowledge graph: UUID keys and foreign keys. Created after the bookkeeping tables.
-- Runs with search_path set to the graph's schema. `sync_run` is the number, in table sync_run, of the run
-- that wrote a row.

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
    sync_version      bigint NOT NULL,
    sync_run          bigint
);

-- Prohibited chunks refer to their source by its content.
CREATE INDEX raw_sources_content_hash ON raw_sources USING hash (content_hash) WHERE content_hash IS NOT NULL;

CREATE TABLE facts (
    id           uuid PRIMARY KEY,
    key          text NOT NULL,
    content      text NOT NULL,
    fact_type    text NOT NULL,
    metadata     jsonb,
    created_at   timestamptz NOT NULL,
    updated_at   timestamptz NOT NULL,
    sync_version bigint NOT NULL,
    sync_run     bigint
);

CREATE TABLE fact_sources (
    fact_id         uuid NOT NULL REFERENCES facts (id) ON DELETE CASCADE,
    raw_source_id   uuid NOT NULL REFERENCES raw_sources (id) ON DELETE CASCADE,
    context_snippet text,
    attribution     text,
    created_at      timestamptz NOT NULL,
    updated_at      timestamptz NOT NULL,
    sync_version    bigint NOT NULL,
    sync_run        bigint,
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
    sync_version      bigint NOT NULL,
    sync_run          bigint
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
    sync_version      bigint NOT NULL,
    sync_run          bigint
);
CREATE INDEX edges_source_node_id ON edges (source_node_id);
CREATE INDEX edges_target_node_id ON edges (target_node_id);

CREATE TABLE edge_facts (
    edge_id uuid NOT NULL REFERENCES edges (id) ON DELETE CASCADE,
    fact_id uuid NOT NULL REFERENCES facts (id) ON DELETE CASCADE,
    PRIMARY KEY (edge_id, fact_id)
);
CREATE INDEX edge_facts_fact_id ON edge_facts (fact_id);

CREATE TABLE node_fact_rejections (
    node_id      uuid NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
    fact_id      uuid NOT NULL REFERENCES facts (id) ON DELETE CASCADE,
    reason       text,
    created_at   timestamptz NOT NULL,
    sync_version bigint NOT NULL,
    sync_run     bigint,
    PRIMARY KEY (node_id, fact_id)
);
CREATE INDEX node_fact_rejections_fact_id ON node_fact_rejections (fact_id);

CREATE TABLE dimensions (
    id           uuid PRIMARY KEY,
    key          text NOT NULL,
    node_id      uuid NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
    model_id     text NOT NULL,
    batch_index  integer NOT NULL,
    content      text NOT NULL,
    confidence   double precision,
    metadata     jsonb,
    created_at   timestamptz NOT NULL,
    updated_at   timestamptz NOT NULL,
    sync_version bigint NOT NULL,
    sync_run     bigint
);
CREATE INDEX dimensions_node_id ON dimensions (node_id, model_id, batch_index);

CREATE TABLE dimension_facts (
    dimension_id uuid NOT NULL REFERENCES dimensions (id) ON DELETE CASCADE,
    fact_id      uuid NOT NULL REFERENCES facts (id) ON DELETE CASCADE,
    PRIMARY KEY (dimension_id, fact_id)
);
CREATE INDEX dimension_facts_fact_id ON dimension_facts (fact_id);

CREATE TABLE convergence_reports (
    node_id             uuid PRIMARY KEY REFERENCES nodes (id) ON DELETE CASCADE,
    convergence_score   double precision,
    converged_claims    jsonb,
    divergent_claims    jsonb,
    recommended_content text,
    created_at          timestamptz NOT NULL,
    updated_at          timestamptz NOT NULL,
    sync_version        bigint NOT NULL,
    sync_run            bigint
);

CREATE TABLE node_counters (
    node_id          uuid PRIMARY KEY REFERENCES nodes (id) ON DELETE CASCADE,
    access_count     bigint NOT NULL,
    update_count     bigint NOT NULL,
    last_accessed_at timestamptz,
    created_at       timestamptz NOT NULL,
    updated_at       timestamptz NOT NULL,
    sync_version     bigint NOT NULL,
    sync_run         bigint
);

CREATE TABLE node_versions (
    id           uuid PRIMARY KEY,
    key          text NOT NULL,
    node_id      uuid NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
    version      integer NOT NULL,
    snapshot     jsonb,
    creator_id   text,
    created_at   timestamptz NOT NULL,
    sync_version bigint NOT NULL,
    sync_run     bigint
);
CREATE INDEX node_versions_node_id ON node_versions (node_id, version);

CREATE TABLE prohibited_chunks (
    id            uuid PRIMARY KEY,
    key           text NOT NULL,
    raw_source_id uuid NOT NULL REFERENCES raw_sources (id) ON DELETE CASCADE,
    content_hash  text NOT NULL,
    chunk_text    text NOT NULL,
    model_id      text,
    reason        text,
    created_at    timestamptz NOT NULL,
    updated_at    timestamptz NOT NULL,
    sync_version  bigint NOT NULL,
    sync_run      bigint
);
CREATE INDEX prohibited_chunks_raw_source_id ON prohibited_chunks (raw_source_id);

CREATE TABLE llm_usage (
    id                uuid PRIMARY KEY,
    key               text NOT NULL,
    task              text,
    model_id          text NOT NULL,
    prompt_tokens     bigint NOT NULL,
    completion_tokens bigint NOT NULL,
    cost_usd          numeric,
    created_at        timestamptz NOT NULL,
    sync_version      bigint NOT NULL,
    sync_run          bigint
);
CREATE INDEX llm_usage_created_at ON llm_usage (created_at);

-- Counts for nodes. The engine updates them in the transaction that changes what they count.
CREATE TABLE node_stats (
    node_id           uuid PRIMARY KEY REFERENCES nodes (id) ON DELETE CASCADE,
    fact_count        bigint NOT NULL DEFAULT 0,
    edge_count        bigint NOT NULL DEFAULT 0,
    child_count       bigint NOT NULL DEFAULT 0,
    dimension_count   bigint NOT NULL DEFAULT 0,
    convergence_score double precision
) WITH (fillfactor = 70);
