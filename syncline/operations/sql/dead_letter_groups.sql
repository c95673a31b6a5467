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
