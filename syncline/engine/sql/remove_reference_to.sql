-- An optional reference to a row that leaves waits for it to come back.
WITH changed AS (
    UPDATE @{child} t SET @{reference} = NULL FROM pg_temp.sync_gone g
    WHERE g.table_name = '@{parent_name}' AND g.row_id = t.@{reference}
      AND NOT EXISTS (SELECT FROM pg_temp.sync_gone o WHERE o.table_name = '@{child_name}' AND o.row_id = t.id)
    RETURNING t.id, g.row_id AS parent, g.key[1] AS parent_key
), parked AS (
    INSERT INTO sync_parked_reference (table_name, name, owner, waits_for_table, waits_for, waits_for_key)
    SELECT '@{child_name}', '@{reference_name}', id, '@{parent_name}', parent, parent_key FROM changed
    ON CONFLICT DO NOTHING
)@{queue}
SELECT count(*) FROM changed
