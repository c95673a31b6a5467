, restored AS (
    INSERT INTO sync_requeue (table_name, row_id, key, reason)
    SELECT '@{child_name}', o.id, ARRAY[o.key], 'a rejection left' FROM changed c JOIN @{child} o ON o.id = c.@{owner}
    ON CONFLICT DO NOTHING
)
