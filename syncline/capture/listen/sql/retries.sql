-- Retries of a graph-db that are due.

-- name: retry_due
-- Each part is one entry of an index, or one row per collection.
SELECT @{name} AS schema, f.due, clock_timestamp() AS now
FROM (
    SELECT least(
        (SELECT min(d.next_retry_at) FROM @{schema}.sync_vector_delay d),
        (
            SELECT min(o.next_retry_at)
            FROM @{schema}.sync_count k
            CROSS JOIN LATERAL (
                SELECT p.next_retry_at FROM @{schema}.sync_outbox p
                WHERE p.collection = k.name AND p.error IS NOT NULL AND p.next_retry_at IS NOT NULL
                ORDER BY p.next_retry_at LIMIT 1
            ) o
            WHERE k.counted = 'sync_outbox' AND k.refused AND k.entries > 0
                AND NOT EXISTS (
                    SELECT FROM @{schema}.sync_vector_delay d WHERE d.collection = k.name AND d.next_retry_at > now()
                )
        ),
        (SELECT next_retry_at FROM @{schema}.sync_dead_letter WHERE next_retry_at IS NOT NULL ORDER BY next_retry_at LIMIT 1)
    ) AS due
) f
WHERE f.due <= clock_timestamp()
