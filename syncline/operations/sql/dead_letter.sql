SELECT table_name AS "table", key, version, sqlstate, fingerprint,
       CASE WHEN by_code THEN '@{from_code}' ELSE message END AS message,
       CASE WHEN NOT by_code THEN constraint_name END AS "constraint",
       attempts, first_failed_at, last_failed_at, next_retry_at, run_id,
       CASE WHEN next_retry_at IS NULL THEN 'dead' ELSE 'retrying' END AS state
FROM sync_dead_letter
WHERE table_name = $1 AND row_id = ANY ($2::uuid[])
