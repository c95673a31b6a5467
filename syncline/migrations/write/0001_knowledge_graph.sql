-- The write-db side of one graph: no foreign keys, TEXT keys, shaped for many concurrent writers.
-- Runs with search_path set to the graph's schema. A product's own tables stay unchanged; adoption adds what
-- capture needs to either.

CREATE TABLE IF NOT EXISTS write_raw_sources (
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
    updated_at        timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE IF NOT EXISTS write_facts (
    id           text PRIMARY KEY,
    content      text NOT NULL,
    fact_type    text NOT NULL DEFAULT 'statement',
    dedup_status text NOT NULL DEFAULT 'pending',
    metadata     jsonb,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE IF NOT EXISTS write_fact_sources (
    fact_id         text NOT NULL,
    raw_source_id   text NOT NULL,
    context_snippet text,
    attribution     text,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (fact_id, raw_source_id)
);

CREATE TABLE IF NOT EXISTS write_nodes (
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
    updated_at        timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE IF NOT EXISTS write_edges (
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
    updated_at        timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE IF NOT EXISTS write_node_fact_rejections (
    node_id    text NOT NULL,
    fact_id    text NOT NULL,
    reason     text,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (node_id, fact_id)
);

CREATE TABLE IF NOT EXISTS write_dimensions (
    id          text PRIMARY KEY,
    node_id     text NOT NULL,
    model_id    text NOT NULL,
    batch_index integer NOT NULL DEFAULT 0,
    content     text NOT NULL,
    confidence  double precision,
    fact_ids    text[] NOT NULL DEFAULT '{}',
    metadata    jsonb,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE IF NOT EXISTS write_convergence_reports (
    node_id             text PRIMARY KEY,
    convergence_score   double precision,
    converged_claims    jsonb,
    divergent_claims    jsonb,
    recommended_content text,
    created_at          timestamptz NOT NULL DEFAULT now(),
    updated_at          timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE IF NOT EXISTS write_node_counters (
    node_id          text PRIMARY KEY,
    access_count     bigint NOT NULL DEFAULT 0,
    update_count     bigint NOT NULL DEFAULT 0,
    last_accessed_at timestamptz,
    created_at       timestamptz NOT NULL DEFAULT now(),
    updated_at       timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE IF NOT EXISTS write_node_versions (
    id         text PRIMARY KEY,
    node_id    text NOT NULL,
    version    integer NOT NULL,
    snapshot   jsonb,
    creator_id text,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE IF NOT EXISTS write_prohibited_chunks (
    id           text PRIMARY KEY,
    content_hash text NOT NULL,
    chunk_text   text NOT NULL,
    model_id     text,
    reason       text,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE IF NOT EXISTS write_llm_usage (
    id                text PRIMARY KEY,
    task              text,
    model_id          text NOT NULL,
    prompt_tokens     bigint NOT NULL DEFAULT 0,
    completion_tokens bigint NOT NULL DEFAULT 0,
    cost_usd          numeric,
    created_at        timestamptz NOT NULL DEFAULT now()
);
