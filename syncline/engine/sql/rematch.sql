, rematched AS (
    INSERT INTO sync_requeue (table_name, row_id, key, reason)
    SELECT '@{child_name}', t.id, ARRAY[t.key], 'its parent changed'
    FROM updated c JOIN @{parent} o ON o.id = c.id JOIN @{child} t ON t.@{reference} = c.id
    WHERE o.@{by}::text COLLATE "C" IS DISTINCT FROM c.@{by}::text
    ON CONFLICT DO NOTHING
)
