-- The rows whose numbers a batch may have changed.
CREATE TEMP TABLE IF NOT EXISTS sync_touched (counted text NOT NULL, id uuid NOT NULL) ON COMMIT DELETE ROWS
