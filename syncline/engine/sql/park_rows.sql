-- A row whose required parent is missing waits under it, whole, and leaves the batch. One that names none at all
-- would wait for ever: it goes on and is refused.
WITH orphan AS (
    DELETE FROM @{stage} s
    WHERE s.sync_present AND s.@{reference} IS NOT NULL@{within}
      AND NOT EXISTS (SELECT FROM @{parent} p WHERE p.id = s.@{reference_id})
    RETURNING s.*
), outdated AS (
    -- The version that has landed is no longer true.
    INSERT INTO pg_temp.sync_gone (table_name, row_id, key, again)
    SELECT '@{table}', @{row_id}, ARRAY[@{key}], NULL
    FROM orphan s WHERE EXISTS (SELECT FROM @{target} t WHERE @{same_row})
    ON CONFLICT DO NOTHING
), absolved AS (
    -- What waits for a parent is no dead letter any longer.
    DELETE FROM sync_dead_letter d USING orphan s WHERE d.table_name = @{of_table} AND d.row_id = @{row_id}
), parked AS (
    INSERT INTO sync_parked_row AS r (table_name, row_id, key, image, waits_for_table, waits_for, waits_for_key)
    SELECT '@{table}', @{row_id}, ARRAY[@{key}], @{image}, '@{parent_name}', @{waits_for}, s.@{reference}
    FROM orphan s
    ON CONFLICT (table_name, row_id) DO UPDATE
    SET image = excluded.image, waits_for_table = excluded.waits_for_table, waits_for = excluded.waits_for,
        waits_for_key = excluded.waits_for_key, released = false
    RETURNING 1
)
SELECT count(*) FROM parked
