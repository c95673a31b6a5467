-- The action and its audit are one statement; what touches nothing leaves no trace.
WITH chosen AS (
    UPDATE sync_dead_letter SET next_retry_at = now(), attempts = 0
    WHERE ($1::text IS NULL OR table_name = $1)
      AND ($7::uuid[] IS NULL OR row_id = ANY ($7))
      AND ($3::text IS NULL OR fingerprint = $3)
    RETURNING 1
)
INSERT INTO sync_audit (who, action, why, table_name, key, fingerprint, run_id, starter, rows)
SELECT $4, 'retry', $5, $1, $2, $3, $6, $8, count(*) FROM chosen HAVING count(*) > 0
RETURNING rows
