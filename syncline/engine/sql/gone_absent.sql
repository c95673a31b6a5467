-- Staged rows that do not belong in the target leave it, if they are there, and wait nowhere.
WITH absent AS (DELETE FROM @{stage} s WHERE NOT s.sync_present RETURNING s.*)
INSERT INTO pg_temp.sync_gone (table_name, row_id, key)
SELECT '@{table}', @{row_id}, ARRAY[@{key}] FROM absent s
ON CONFLICT DO NOTHING
