-- The same version refused again is one more attempt, but not within one run, which may ask for a row twice; another
-- version starts anew.
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
