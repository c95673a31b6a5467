-- A row whose required parent is missing waits under it, whole, and leaves the batch.
WITH orphan AS (
    DELETE FROM @{stage} s
    WHERE s.sync_present AND NOT EXISTS (SELECT FROM @{parent} p WHERE p.id = s.@{reference_id})
    RETURNING s.*
)
INSERT INTO sync_parked_row AS r (table_name, key, image, waits_for_table, waits_for, waits_for_key)
SELECT '@{table}', ARRAY[@{key}], @{image}, '@{parent_name}', s.@{reference_id}, s.@{reference}
FROM orphan s
ON CONFLICT (table_name, key) DO UPDATE
SET image = excluded.image, waits_for_table = excluded.waits_for_table, waits_for = excluded.waits_for,
    waits_for_key = excluded.waits_for_key, released = false
