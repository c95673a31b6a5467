-- Nothing of a row that left waits any longer; what left with its parent is asked for again.
WITH rows AS (
    DELETE FROM sync_parked_row r USING pg_temp.sync_gone g
    WHERE NOT g.again AND r.table_name = g.table_name AND r.row_id = g.row_id
), parts AS (
    DELETE FROM sync_parked_reference r USING pg_temp.sync_gone g
    WHERE r.table_name = g.table_name AND r.owner = g.row_id
), letters AS (
    DELETE FROM sync_dead_letter d USING pg_temp.sync_gone g
    WHERE NOT g.again AND d.table_name = g.table_name AND d.row_id = g.row_id
)
INSERT INTO sync_requeue (table_name, row_id, key, reason)
SELECT table_name, row_id, key, 'its parent left' FROM pg_temp.sync_gone WHERE again
ON CONFLICT DO NOTHING
