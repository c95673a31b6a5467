-- The rest of the knowledge graph's write-db tables. Runs with search_path set to the graph's schema.
-- IF NOT EXISTS, as in revision 0001: a product's own tables stay as they are, and adoption says what they lack.

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
