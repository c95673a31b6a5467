-- The write-db of a graph product: many workers write here, nothing is referenced by anything.
CREATE TYPE fetch_state AS ENUM ('queued', 'fetched', 'failed');
CREATE TABLE write_raw_sources (
    id uuid PRIMARY KEY,
    uri text NOT NULL,
    title text,
    content_hash varchar(64) NOT NULL,
    state fetch_state NOT NULL DEFAULT 'queued',
    provider_metadata jsonb NOT NULL DEFAULT '{}',
    created_at timestamp NOT NULL
);
CREATE TABLE write_facts (
    id uuid PRIMARY KEY,
    content text NOT NULL,
    fact_type varchar(40),
    dedup_status varchar(20) NOT NULL DEFAULT 'pending',
    deleted_at timestamp,
    created_at timestamp NOT NULL
);
CREATE TABLE write_nodes (
    key text PRIMARY KEY,
    node_uuid uuid NOT NULL UNIQUE,
    concept text NOT NULL,
    node_type text NOT NULL,
    parent_key text,
    fact_ids varchar[] NOT NULL DEFAULT '{}',
    definition text,
    created_at timestamp NOT NULL
);
CREATE TABLE write_node_fact_rejections (
    node_key text NOT NULL,
    fact_id uuid NOT NULL,
    PRIMARY KEY (node_key, fact_id)
);
CREATE TABLE write_edges (
    key text PRIMARY KEY,
    source_node_key text NOT NULL,
    target_node_key text NOT NULL,
    relationship_type varchar(20) NOT NULL,
    weight double precision NOT NULL DEFAULT 0,
    fact_ids varchar[] NOT NULL DEFAULT '{}'
);
CREATE TABLE write_provenance (
    id uuid PRIMARY KEY,
    fact_id uuid NOT NULL,
    content_hash varchar(64) NOT NULL,
    source_uri text NOT NULL,
    context_snippet text
);
CREATE TABLE write_convergence_reports (
    node_key text PRIMARY KEY,
    convergence_score double precision NOT NULL,
    summary text
);
CREATE TABLE write_convergence_claims (
    id bigserial PRIMARY KEY,
    node_key text NOT NULL,
    claim text NOT NULL
);
CREATE TABLE write_llm_usage (
    id text PRIMARY KEY,
    model text NOT NULL,
    tokens bigint NOT NULL,
    spent_on date NOT NULL,
    source text
);
