-- Nothing of a row that left waits any longer; what left with its parent is asked for again, and so is what was refused
-- for a unique value that it had.
WITH RECURSIVE freed AS (
    SELECT d.table_name, d.row_id, d.key FROM sync_dead_letter d JOIN pg_temp.sync_gone g
        ON d.table_name = g.table_name AND d.held_by = g.row_id
    UNION
    SELECT d.table_name, d.row_id, d.key FROM freed f JOIN sync_dead_letter d
        ON d.table_name = f.table_name AND d.held_by = f.row_id
), rows AS (
    DELETE FROM sync_parked_row r USING pg_temp.sync_gone g
    WHERE NOT g.again AND r.table_name = g.table_name AND r.row_id = g.row_id
), parts AS (
    DELETE FROM sync_parked_reference r USING pg_temp.sync_gone g
    WHERE r.table_name = g.table_name AND r.owner = g.row_id
), letters AS (
    DELETE FROM sync_dead_letter d USING pg_temp.sync_gone g
    WHERE NOT g.again AND d.table_name = g.table_name AND d.row_id = g.row_id
)
INSERT INTO sync_requeue (table_name, row_id, key, reason, queued_at)
SELECT table_name, row_id, key, 'its parent left', clock_timestamp() FROM pg_temp.sync_gone WHERE again
UNION ALL
SELECT table_name, row_id, key, 'a value it wants is free',
       clock_timestamp() + row_number() OVER () * interval '1 microsecond'
FROM freed
ON CONFLICT DO NOTHING
