-- Rebuilds: which graphs have a second generation made by their own provider, and which one was live at its start.
-- Runs with search_path set to schema syncline.

CREATE TABLE graph_rebuilds (
    graph_id        uuid PRIMARY KEY REFERENCES graphs (id) ON DELETE CASCADE,
    -- The graph's prefix when it was started. A switch swaps the prefix in the graph's record, so this tells whether
    -- readers see the old generation or the new one, however a step was interrupted.
    first_prefix    text NOT NULL,
    -- Rows that a cycle of the new generation reads in a second; null: as many as it can.
    rows_per_second integer
        CONSTRAINT graph_rebuilds_rows_valid CHECK (rows_per_second > 0),
    started_at      timestamptz NOT NULL DEFAULT now()
);
