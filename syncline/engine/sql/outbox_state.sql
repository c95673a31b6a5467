-- One row per collection of the map: what it waits for, and whether there is anything to do. Counts nothing, and
-- asks for the first of a kind instead of whether there is one, so that it costs the same however many wait.
SELECT c.name AS collection, d.since IS NOT NULL AS delayed, coalesce(d.next_retry_at > now(), false) AS waits,
       (
           SELECT o.seq FROM sync_outbox o WHERE o.collection = c.name AND o.error IS NULL ORDER BY o.seq LIMIT 1
       ) IS NOT NULL AS owed,
       (
           SELECT o.point_id FROM sync_outbox o WHERE o.collection = c.name AND o.error IS NOT NULL
           ORDER BY o.next_retry_at LIMIT 1
       ) IS NOT NULL AS refused,
       coalesce((
           SELECT o.next_retry_at FROM sync_outbox o
           WHERE o.collection = c.name AND o.error IS NOT NULL AND o.next_retry_at IS NOT NULL
           ORDER BY o.next_retry_at LIMIT 1
       ) <= now(), false) AS due,
       e.embedding
FROM unnest($1::text[]) AS c (name)
LEFT JOIN sync_vector_delay d ON d.collection = c.name
LEFT JOIN sync_vector_embedding e ON e.collection = c.name
