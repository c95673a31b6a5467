SELECT number, at, who, action, why, table_name AS "table", key, fingerprint, rows, run_id, starter
FROM sync_audit
WHERE $1::bigint IS NULL OR number < $1
ORDER BY number DESC
LIMIT $2
