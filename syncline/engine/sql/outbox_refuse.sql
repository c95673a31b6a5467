-- Points that were refused wait by themselves. Without a next try they are dead until their row changes.
UPDATE sync_outbox o
SET attempts = o.attempts + 1,
    next_retry_at = CASE
        WHEN o.attempts + 1 < $5::int THEN clock_timestamp() + make_interval(secs => $4::float8 * 2 ^ o.attempts)
    END,
    error = e.error
FROM unnest($2::bigint[], $3::text[]) AS e (seq, error)
WHERE o.collection = $1 AND o.error IS NULL AND o.seq = ANY ($2::bigint[]) AND o.seq = e.seq
