-- What people did to graphs: added, changed, archived, promoted, dropped. A line is written with the change.
-- Runs with search_path set to schema syncline.

CREATE TABLE graph_audit (
    number   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    graph_id uuid NOT NULL,
    slug     text NOT NULL,
    action   text NOT NULL,
    -- What changed, by name: values may be anything, options of providers too.
    fields   text[] NOT NULL DEFAULT '{}',
    -- Who somebody said to be, and why; who has started the run, as Temporal has it.
    who      text NOT NULL,
    why      text NOT NULL,
    starter  text,
    run_id   text
);
CREATE INDEX graph_audit_graph ON graph_audit (graph_id, number);
-- However often its activity is tried.
CREATE UNIQUE INDEX graph_audit_run ON graph_audit (run_id, graph_id, action) WHERE run_id IS NOT NULL;

-- Providers that have said that nothing can stand in for them: a plugin that is gone cannot be asked any more.
CREATE TABLE required_providers (
    kind         text NOT NULL,
    id           text NOT NULL,
    distribution text NOT NULL,
    since        timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (kind, id)
);
