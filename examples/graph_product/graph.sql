-- The graph-db of a graph product: what its readers have, with columns and rows of their own.
CREATE TYPE fetch_state AS ENUM ('queued', 'fetched', 'failed');
CREATE TABLE raw_sources (
    id uuid PRIMARY KEY,
    uri text NOT NULL,
    title text,
    content_hash varchar(64) NOT NULL UNIQUE,
    state fetch_state NOT NULL,
    language text,
    fact_count integer NOT NULL DEFAULT 0,
    created_at timestamp
);
CREATE TABLE facts (
    id uuid PRIMARY KEY,
    content text NOT NULL,
    fact_type varchar(40),
    access_count integer NOT NULL DEFAULT 0,
    created_at timestamp NOT NULL
);
CREATE TABLE nodes (
    id uuid PRIMARY KEY,
    concept text NOT NULL,
    node_type text NOT NULL,
    parent_id uuid REFERENCES nodes,
    definition text,
    fact_count integer NOT NULL DEFAULT 0,
    edge_count integer NOT NULL DEFAULT 0,
    child_count integer NOT NULL DEFAULT 0,
    convergence_score double precision,
    access_count integer NOT NULL DEFAULT 0,
    created_at timestamp NOT NULL
);
CREATE TABLE node_facts (
    node_id uuid NOT NULL REFERENCES nodes ON DELETE CASCADE,
    fact_id uuid NOT NULL REFERENCES facts ON DELETE CASCADE,
    relevance double precision NOT NULL,
    linked_at timestamp NOT NULL,
    PRIMARY KEY (node_id, fact_id)
);
CREATE INDEX ON node_facts (fact_id);
CREATE TABLE node_fact_rejections (
    node_id uuid NOT NULL REFERENCES nodes ON DELETE CASCADE,
    fact_id uuid NOT NULL REFERENCES facts ON DELETE CASCADE,
    PRIMARY KEY (node_id, fact_id)
);
CREATE TABLE edges (
    id uuid PRIMARY KEY,
    source_node_id uuid NOT NULL REFERENCES nodes ON DELETE CASCADE,
    target_node_id uuid NOT NULL REFERENCES nodes ON DELETE CASCADE,
    relationship_type varchar(20) NOT NULL,
    weight double precision NOT NULL,
    UNIQUE (source_node_id, target_node_id, relationship_type)
);
CREATE TABLE edge_facts (
    edge_id uuid NOT NULL REFERENCES edges ON DELETE CASCADE,
    fact_id uuid NOT NULL REFERENCES facts ON DELETE CASCADE,
    relevance double precision NOT NULL,
    linked_at timestamp NOT NULL,
    PRIMARY KEY (edge_id, fact_id)
);
CREATE TABLE fact_sources (
    id uuid PRIMARY KEY,
    fact_id uuid NOT NULL REFERENCES facts ON DELETE CASCADE,
    raw_source_id uuid NOT NULL REFERENCES raw_sources ON DELETE CASCADE,
    context_snippet text,
    UNIQUE (fact_id, raw_source_id)
);
CREATE TABLE convergence_reports (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    node_id uuid NOT NULL UNIQUE REFERENCES nodes ON DELETE CASCADE,
    convergence_score double precision NOT NULL,
    summary text
);
CREATE TABLE convergence_claims (
    id bigint PRIMARY KEY,
    report_id bigint NOT NULL REFERENCES convergence_reports ON DELETE CASCADE,
    claim text NOT NULL
);
CREATE TABLE llm_usage (
    id uuid PRIMARY KEY,
    model text NOT NULL,
    tokens bigint NOT NULL,
    spent_on date NOT NULL,
    source_id uuid REFERENCES raw_sources ON DELETE SET NULL
);
