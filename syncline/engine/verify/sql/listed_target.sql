SELECT @{row_id} AS row_id, ARRAY[@{key}] AS key, @{waits} AS waits, @{hash} AS hash
FROM @{rows}
WHERE get_bit($2::bytea, @{bucket}) = 1 OR @{row_id} IN (SELECT unnest($1::uuid[]))
ORDER BY 1
