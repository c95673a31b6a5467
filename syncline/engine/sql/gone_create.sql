-- The rows that leave the graph-db in this transaction. `again`: with a parent, so that they are asked for again;
-- NULL if the row waits already.
CREATE TEMP TABLE IF NOT EXISTS sync_gone (
    table_name text NOT NULL, row_id uuid NOT NULL, key text[] NOT NULL, again boolean DEFAULT false,
    PRIMARY KEY (table_name, row_id)
) ON COMMIT DELETE ROWS
