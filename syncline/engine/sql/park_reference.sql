-- An optional reference to a row that is not here, and not beside it in this batch, waits alone; the row lands without it.
WITH missing AS (
    SELECT s.sync_row_id, s.@{reference_id} AS waits_for, s.@{reference} AS waits_for_key
    FROM @{stage} s
    WHERE s.sync_present
      AND s.@{reference_id} IS NOT NULL
      AND NOT EXISTS (SELECT FROM @{parent} p WHERE p.id = s.@{reference_id})
      @{beside}
), parked AS (
    INSERT INTO sync_parked_reference (table_name, name, owner, waits_for_table, waits_for, waits_for_key)
    SELECT '@{table}', '@{name}', sync_row_id, '@{parent_name}', waits_for, waits_for_key FROM missing
    ON CONFLICT DO NOTHING
)
UPDATE @{stage} s SET @{reference} = NULL FROM missing WHERE s.sync_row_id = missing.sync_row_id
