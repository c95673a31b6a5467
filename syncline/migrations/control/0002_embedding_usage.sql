-- What embeddings cost: a ledger of what was used, and what is left of the budgets of a day.
-- Runs with search_path set to schema syncline. No row values: counts, names and ids only.

-- How a graph's vectors are made and kept: budget of tokens, settings of its collections.
ALTER TABLE graphs ADD COLUMN vectors jsonb NOT NULL DEFAULT '{}'
    CONSTRAINT graphs_vectors_valid CHECK (jsonb_typeof(vectors) = 'object');

-- What each run used of an embedding service. Of runs long past, the month's sum alone: run_id ''.
-- No reference to graphs: what was used stays known when a graph is gone.
CREATE TABLE embedding_usage (
    graph_id  uuid NOT NULL,
    -- The graph's slug, or its shadow's.
    slug      text NOT NULL,
    service   text NOT NULL,
    -- The first day of the month, in UTC.
    month     date NOT NULL,
    run_id    text NOT NULL,
    texts     bigint NOT NULL DEFAULT 0,
    tokens    bigint NOT NULL DEFAULT 0,
    -- Those of the tokens that the service did not count itself.
    estimated bigint NOT NULL DEFAULT 0,
    requests  bigint NOT NULL DEFAULT 0,
    -- Texts of requests that the service refused or did not answer.
    refused   bigint NOT NULL DEFAULT 0,
    first_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (graph_id, slug, service, month, run_id)
);
CREATE INDEX embedding_usage_month ON embedding_usage (month);

-- Tokens of a day, in UTC, by graph and by embedding service: what budgets are compared with.
CREATE TABLE embedding_days (
    day        date NOT NULL,
    scope      text NOT NULL
        CONSTRAINT embedding_days_scope_valid CHECK (scope IN ('graph', 'service')),
    -- The graph's id, or the service's name.
    name       text NOT NULL,
    tokens     bigint NOT NULL DEFAULT 0,
    -- The most that requests under way may use, and those that were never answered: nobody knows what they cost.
    held       bigint NOT NULL DEFAULT 0,
    -- Requests under way.
    open       integer NOT NULL DEFAULT 0,
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (day, scope, name)
);
