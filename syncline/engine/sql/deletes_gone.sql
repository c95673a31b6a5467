INSERT INTO pg_temp.sync_gone (table_name, row_id, key)
SELECT DISTINCT '@{table}', syncline.row_uuid(key), key FROM @{stage} WHERE source_table = '@{source_name}' AND NOT alive
ON CONFLICT DO NOTHING
