-- Two counts, each by an index of its own.
SELECT c.name AS collection, d.since, d.next_retry_at, d.error,
       (SELECT count(*) FROM sync_outbox o WHERE o.collection = c.name AND o.error IS NULL) AS owed,
       (SELECT count(*) FROM sync_outbox o WHERE o.collection = c.name AND o.error IS NOT NULL) AS refused,
       (
           SELECT o.error FROM sync_outbox o WHERE o.collection = c.name AND o.error IS NOT NULL
           ORDER BY o.next_retry_at LIMIT 1
       ) AS refusal
FROM unnest($1::text[]) WITH ORDINALITY AS c (name, place)
LEFT JOIN sync_vector_delay d ON d.collection = c.name
ORDER BY c.place
