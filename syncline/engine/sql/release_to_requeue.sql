-- What was refused when it was released is asked for with its row, which can be told from others and buried.
WITH ready AS (
    DELETE FROM sync_parked_reference r WHERE @{awaiting}
    RETURNING r.owner
)
INSERT INTO sync_requeue (table_name, row_id, key, reason)
SELECT DISTINCT '@{child_name}', t.id, ARRAY[t.key], 'its release was refused' FROM ready r JOIN @{child} t ON t.id = r.owner
ON CONFLICT DO NOTHING
