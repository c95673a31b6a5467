-- In the order of the primary key, which no retry changes.
SELECT table_name AS "table", row_id, key, version, sqlstate, fingerprint,
       CASE WHEN by_code THEN '@{from_code}' ELSE message END AS message,
       CASE WHEN NOT by_code THEN constraint_name END AS "constraint",
       attempts, first_failed_at, last_failed_at, next_retry_at, run_id,
       CASE WHEN next_retry_at IS NULL THEN 'dead' ELSE 'retrying' END AS state
FROM sync_dead_letter
WHERE ($1::text IS NULL OR table_name = $1)
  AND ($2::text IS NULL OR fingerprint = $2)
  AND ($3::text IS NULL OR (next_retry_at IS NULL) = ($3 = 'dead'))
  AND ($4::text IS NULL OR (table_name, row_id) > ($4, $5::uuid))
ORDER BY table_name, row_id
LIMIT $6
