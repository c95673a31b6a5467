INSERT INTO sync_vector_delay AS d (collection, attempts, next_retry_at, error)
VALUES ($1, 1, clock_timestamp() + make_interval(secs => least($3::float8, $4::float8)), $2)
ON CONFLICT (collection) DO UPDATE SET
    attempts = d.attempts + 1,
    next_retry_at = clock_timestamp() + make_interval(secs => least($3::float8 * 2 ^ least(d.attempts, 60), $4::float8)),
    error = excluded.error
RETURNING attempts
