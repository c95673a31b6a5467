SELECT s.sync_row_id AS row_id, ARRAY[@{key}] AS key, s.sync_beyond AS beyond,
       CASE WHEN s.sync_present AND NOT s.sync_beyond THEN @{hash} END AS hash
FROM @{rows}
WHERE get_bit($2::bytea, @{bucket}) = 1 OR s.sync_row_id IN (SELECT unnest($1::uuid[]))
ORDER BY 1
