-- The next of the rows that wait or were refused.
SELECT row_id, key, ARRAY[row_id] AS after
FROM (
    SELECT row_id, key FROM sync_parked_row WHERE table_name = '@{table}'
    UNION
    SELECT row_id, key FROM sync_dead_letter WHERE table_name = '@{table}'
) b
WHERE $1::uuid[] IS NULL OR row_id > ($1::uuid[])[1]
ORDER BY row_id LIMIT $2
