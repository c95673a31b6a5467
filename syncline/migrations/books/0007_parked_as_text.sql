-- A row that waits is kept as the texts of its columns: JSON's own objects and numbers rewrote what was in them.
-- Runs with search_path set to the graph's schema.

-- What waits already may have lost something on its way here, so the next cycle reads it again.
WITH waiting AS (
    DELETE FROM sync_parked_row RETURNING table_name, row_id, key
)
INSERT INTO sync_requeue (table_name, row_id, key, reason)
SELECT table_name, row_id, key, 'rows wait in another form now' FROM waiting
ON CONFLICT DO NOTHING;

-- A worker of an older release writes this column of a row, and must not park in the form that is gone.
ALTER TABLE sync_parked_row ADD CONSTRAINT sync_parked_row_texts CHECK (NOT image ? 'sync_present');
