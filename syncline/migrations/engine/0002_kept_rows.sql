-- Rows of a target that have no source row: those that left the write-db and stay marked, and stubs, which were
-- made because a row refers to them. `target_key`: the target's primary key, as texts.
CREATE TABLE sync_kept (
    table_name text NOT NULL,
    row_id     uuid NOT NULL,
    key        text[] NOT NULL,
    target_key text[] NOT NULL,
    stub       boolean NOT NULL DEFAULT false,
    since      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (table_name, row_id)
);
CREATE INDEX sync_kept_target ON sync_kept (target_key, table_name);
