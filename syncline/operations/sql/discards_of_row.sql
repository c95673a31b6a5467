-- The latest discard that was for this row or may have been, since what the graph-db has came.
SELECT number, at, who, action, why, table_name AS "table", key, fingerprint, rows
FROM sync_audit
WHERE action = 'discard' AND at > coalesce($3::timestamptz, '-infinity')
  AND (table_name IS NULL OR table_name = $1) AND (key IS NULL OR key = $2::text[])
ORDER BY key IS NULL, number DESC
LIMIT 1
