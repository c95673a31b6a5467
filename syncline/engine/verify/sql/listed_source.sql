SELECT s.sync_row_id AS row_id, ARRAY[@{key}] AS key, false AS coming, @{hash} AS hash
FROM @{passed}
WHERE get_bit($2::bytea, @{bucket}) = 1 OR s.sync_row_id IN (SELECT unnest($1::uuid[]))
UNION ALL
SELECT s.sync_row_id, ARRAY[@{key}], true, NULL
FROM @{coming}
WHERE get_bit($2::bytea, @{bucket}) = 1 OR s.sync_row_id IN (SELECT unnest($1::uuid[]))
ORDER BY 1
