-- Rejected rows: insert, resolve, retry.

-- name: refused_before
-- The version and the error with which a row was rejected before.
SELECT version, sqlstate FROM sync_dead_letter WHERE table_name = $1 AND row_id = $2

-- name: insert_dead_letters
-- The same version rejected again is one more attempt, but not within one run, which may request a row twice;
-- another version starts again.
INSERT INTO sync_dead_letter AS d (
    table_name, row_id, key, version, sqlstate, message, constraint_name, fingerprint, held_by, by_code, next_retry_at, run_id
)
SELECT $1, b.row_id, ARRAY(SELECT jsonb_array_elements_text(b.key::jsonb)), b.version, b.sqlstate, b.message,
       b.constraint_name, b.fingerprint, b.held_by, b.by_code,
       CASE WHEN $3::int > 1 THEN clock_timestamp() + make_interval(secs => $2::float8) END, $4
FROM unnest(
    $5::uuid[], $6::text[], $7::bigint[], $8::text[], $9::text[], $10::text[], $11::text[], $12::uuid[], $13::boolean[]
) AS b (row_id, key, version, sqlstate, message, constraint_name, fingerprint, held_by, by_code)
ON CONFLICT (table_name, row_id) DO UPDATE SET
    version = excluded.version, sqlstate = excluded.sqlstate, message = excluded.message,
    constraint_name = excluded.constraint_name, fingerprint = excluded.fingerprint, held_by = excluded.held_by,
    by_code = excluded.by_code,
    run_id = excluded.run_id, last_failed_at = clock_timestamp(),
    first_failed_at = CASE WHEN d.version = excluded.version THEN d.first_failed_at ELSE clock_timestamp() END,
    attempts = CASE
        WHEN d.version <> excluded.version THEN 1
        WHEN d.run_id = excluded.run_id THEN d.attempts
        ELSE d.attempts + 1
    END,
    next_retry_at = CASE
        WHEN d.version <> excluded.version THEN excluded.next_retry_at
        WHEN d.run_id = excluded.run_id THEN d.next_retry_at
        WHEN d.attempts + 1 < $3::int THEN clock_timestamp() + make_interval(secs => $2::float8 * 2 ^ d.attempts)
    END

-- name: reject_references
-- A rejected version refers to nothing: the graph-db has the version before.
DELETE FROM sync_parked_reference WHERE table_name = $1 AND owner = ANY ($2::uuid[])

-- name: reject_parked
-- A rejected version replaces a parked one.
DELETE FROM sync_parked_row WHERE table_name = $1 AND row_id = ANY ($2::uuid[])

-- name: resolve_dead_letters
-- An applied row is no longer a dead letter.
DELETE FROM sync_dead_letter d USING @{stage} s WHERE d.table_name = @{of_table} AND d.row_id = @{row_id}

-- name: forget
-- Rows whose keys are not valid text, which the write-db no longer has: only their dead letters existed here.
DELETE FROM sync_dead_letter WHERE table_name = $1 AND row_id = ANY ($2::uuid[])

-- name: next_retry
(SELECT next_retry_at FROM sync_dead_letter WHERE next_retry_at IS NOT NULL ORDER BY next_retry_at LIMIT 1)

-- name: requeue_due
INSERT INTO sync_requeue (table_name, row_id, key, reason)
SELECT table_name, row_id, key, 'retry' FROM sync_dead_letter WHERE next_retry_at <= now()
ON CONFLICT DO NOTHING

-- name: asked_for
-- Which of the tables $1 have released rows, and which have rows requested by key.
SELECT @{released} AS released,
       ARRAY(
           SELECT t.name FROM unnest($1::text[]) AS t (name)
           WHERE (
               SELECT r.row_id FROM sync_requeue r WHERE r.table_name = t.name ORDER BY r.table_name, r.row_id LIMIT 1
           ) IS NOT NULL
       ) AS requeued

-- name: requeue_rings
-- With a requested row come the rejected rows that share unique values with it, as one set.
WITH RECURSIVE ring AS (
    SELECT q.row_id, d.key, d.held_by
    FROM sync_requeue q LEFT JOIN sync_dead_letter d ON d.table_name = q.table_name AND d.row_id = q.row_id
    WHERE q.table_name = $1
      AND EXISTS (SELECT FROM sync_dead_letter h WHERE h.table_name = $1 AND h.held_by IS NOT NULL)
    UNION
    SELECT d.row_id, d.key, d.held_by
    FROM ring r JOIN sync_dead_letter d ON d.table_name = $1 AND (d.held_by = r.row_id OR d.row_id = r.held_by)
)
INSERT INTO sync_requeue (table_name, row_id, key, reason, queued_at)
SELECT $1, row_id, key, 'a value it wants changed hands',
       clock_timestamp() + row_number() OVER () * interval '1 microsecond'
FROM ring WHERE key IS NOT NULL
ON CONFLICT DO NOTHING

-- name: requeue_read
SELECT row_id, key FROM sync_requeue WHERE table_name = $1 ORDER BY queued_at, row_id LIMIT $2

-- name: requeue_done
DELETE FROM sync_requeue WHERE table_name = $1 AND row_id = ANY ($2::uuid[])
