-- Dead letters: list, retry, discard, with their audit.

-- name: dead_letters
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

-- name: dead_letter_groups
-- The example is the row with the lowest key: an aggregate of keys alone is small, however many rows there are. Its id goes
-- with it, which does not follow from a key that is no text.
SELECT g.*, d.key AS example_key, CASE WHEN d.by_code THEN '@{from_code}' ELSE d.message END AS example_message
FROM (
    SELECT table_name AS "table", fingerprint, sqlstate,
           CASE WHEN NOT by_code THEN constraint_name END AS "constraint",
           CASE WHEN next_retry_at IS NULL THEN 'dead' ELSE 'retrying' END AS state,
           count(*) AS rows, min(first_failed_at) AS oldest, max(last_failed_at) AS newest,
           min(next_retry_at) AS next_retry_at, min(key || row_id::text) AS example,
           (sum(count(*)) OVER ())::bigint AS all_rows,
           (sum(count(*) FILTER (WHERE next_retry_at IS NULL)) OVER ())::bigint AS all_dead,
           count(*) OVER () AS all_groups
    FROM sync_dead_letter
    WHERE ($1::text IS NULL OR table_name = $1)
      AND ($2::text IS NULL OR (next_retry_at IS NULL) = ($2 = 'dead'))
    GROUP BY table_name, fingerprint, sqlstate, CASE WHEN NOT by_code THEN constraint_name END, next_retry_at IS NULL
    ORDER BY rows DESC, table_name, fingerprint, state
    LIMIT $3
) AS g
JOIN sync_dead_letter d ON d.table_name = g."table" AND d.row_id = g.example[array_upper(g.example, 1)]::uuid
ORDER BY g.rows DESC, g."table", g.fingerprint, g.state

-- name: dead_letter
SELECT table_name AS "table", key, version, sqlstate, fingerprint,
       CASE WHEN by_code THEN '@{from_code}' ELSE message END AS message,
       CASE WHEN NOT by_code THEN constraint_name END AS "constraint",
       attempts, first_failed_at, last_failed_at, next_retry_at, run_id,
       CASE WHEN next_retry_at IS NULL THEN 'dead' ELSE 'retrying' END AS state
FROM sync_dead_letter
WHERE table_name = $1 AND row_id = ANY ($2::uuid[])

-- name: retry
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

-- name: discard
-- The action and its audit are one statement; what touches nothing leaves no trace. A retry that an earlier cycle
-- had no time for goes too; one that a cycle has in hand now is left to it, because to wait here could deadlock.
WITH chosen AS (
    DELETE FROM sync_dead_letter
    WHERE ($1::text IS NULL OR table_name = $1)
      AND ($7::uuid[] IS NULL OR row_id = ANY ($7))
      AND ($3::text IS NULL OR fingerprint = $3)
    RETURNING table_name, row_id
), queued AS (
    SELECT q.table_name, q.row_id FROM sync_requeue q JOIN chosen c USING (table_name, row_id)
    WHERE q.reason = 'retry'
    FOR UPDATE OF q SKIP LOCKED
), forgotten AS (
    DELETE FROM sync_requeue q USING queued WHERE q.table_name = queued.table_name AND q.row_id = queued.row_id
)
INSERT INTO sync_audit (who, action, why, table_name, key, fingerprint, run_id, starter, rows)
SELECT $4, 'discard', $5, $1, $2, $3, $6, $8, count(*) FROM chosen HAVING count(*) > 0
RETURNING rows

-- name: audit
SELECT number, at, who, action, why, table_name AS "table", key, fingerprint, rows, run_id, starter
FROM sync_audit
WHERE $1::bigint IS NULL OR number < $1
ORDER BY number DESC
LIMIT $2

-- name: audited
SELECT rows FROM sync_audit WHERE run_id = $1 AND action = $2
