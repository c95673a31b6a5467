SELECT t.text IS NOT NULL AS wanted, v.point_id IS NOT NULL AS written, v.embedding,
       v.text_hash IS NOT DISTINCT FROM sha256(convert_to(t.text, 'UTF8')) AS current,
       o.queued_at, coalesce(o.attempts, 0) AS attempts, o.next_retry_at, o.error,
       d.since AS delayed_since, d.error AS delay_error
FROM (SELECT) AS one
LEFT JOIN LATERAL (SELECT (@{text}) AS text FROM @{target} t WHERE t.id = $2) AS t ON true
LEFT JOIN sync_vector v ON v.collection = $1 AND v.point_id = $2
LEFT JOIN sync_outbox o ON o.collection = $1 AND o.point_id = $2
LEFT JOIN sync_vector_delay d ON d.collection = $1
