-- One row per collection of the map: what it waits for, and whether there is anything to do. Counts nothing, so
-- that it costs the same however many entries wait.
SELECT c.name AS collection, d.since IS NOT NULL AS delayed, coalesce(d.next_retry_at > now(), false) AS waits,
       EXISTS (SELECT FROM sync_outbox o WHERE o.collection = c.name AND o.error IS NULL) AS owed,
       EXISTS (SELECT FROM sync_outbox o WHERE o.collection = c.name AND o.error IS NOT NULL) AS refused,
       EXISTS (
           SELECT FROM sync_outbox o
           WHERE o.collection = c.name AND o.error IS NOT NULL AND o.next_retry_at <= now()
       ) AS due,
       e.embedding
FROM unnest($1::text[]) AS c (name)
LEFT JOIN sync_vector_delay d ON d.collection = c.name
LEFT JOIN sync_vector_embedding e ON e.collection = c.name
