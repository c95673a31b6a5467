-- Rows that were refused for a unique value which a staged row had are asked for again, and those that wait for them:
-- nearest first, so that however many are read at once, they are neighbours.
WITH RECURSIVE freed AS (
    SELECT d.row_id, d.key FROM sync_dead_letter d JOIN @{stage} s ON d.held_by = @{row_id}
    WHERE d.table_name = '@{table}' AND s.sync_present
    UNION
    SELECT d.row_id, d.key FROM freed f JOIN sync_dead_letter d ON d.held_by = f.row_id AND d.table_name = '@{table}'
)
INSERT INTO sync_requeue (table_name, row_id, key, reason, queued_at)
SELECT '@{table}', row_id, key, 'a value it wants changed hands',
       clock_timestamp() + row_number() OVER () * interval '1 microsecond'
FROM freed
ON CONFLICT DO NOTHING
