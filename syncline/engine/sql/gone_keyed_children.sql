-- The same, where a row's key is its parents.
INSERT INTO pg_temp.sync_gone (table_name, row_id, key, again)
SELECT '@{child_name}', syncline.row_uuid(k.key), k.key, true
FROM @{child} t
JOIN pg_temp.sync_gone g ON g.table_name = '@{parent_name}' AND g.row_id = t.@{reference}
@{joins}
CROSS JOIN LATERAL (SELECT ARRAY[@{key}] AS key) AS k
ON CONFLICT DO NOTHING
