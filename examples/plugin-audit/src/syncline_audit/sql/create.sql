-- Cycles of one graph may be here at once; those of IF NOT EXISTS collide.
SELECT pg_advisory_xact_lock(hashtextextended('audit_trail:' || current_schema(), 0));

CREATE TABLE IF NOT EXISTS audit_trail (
    run_id           text NOT NULL,
    table_name       text NOT NULL,
    workflow_id      text NOT NULL,
    provider         text NOT NULL,
    provider_version text,
    began_at         timestamptz NOT NULL,
    rows             bigint NOT NULL,
    links            bigint NOT NULL,
    deletes          bigint NOT NULL,
    failures         bigint NOT NULL,
    PRIMARY KEY (run_id, table_name)
);

CREATE INDEX IF NOT EXISTS audit_trail_began_at ON audit_trail (began_at);
