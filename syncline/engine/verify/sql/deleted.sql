SELECT @{row_id} AS row_id, ARRAY[@{key}] AS key
FROM (SELECT key FROM sync_tombstone WHERE source_table = '@{source}' AND @{beyond}) d
