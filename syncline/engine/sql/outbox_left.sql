-- How many are kept by triggers; the reason of one refusal is found by the index of those that have one.
SELECT c.name AS collection, d.since, d.next_retry_at, d.error,
       coalesce((
           SELECT entries FROM sync_count k WHERE k.counted = 'sync_outbox' AND k.name = c.name AND NOT k.refused
       ), 0) AS owed,
       coalesce((
           SELECT entries FROM sync_count k WHERE k.counted = 'sync_outbox' AND k.name = c.name AND k.refused
       ), 0) AS refused,
       (
           SELECT o.error FROM sync_outbox o WHERE o.collection = c.name AND o.error IS NOT NULL
           ORDER BY o.next_retry_at LIMIT 1
       ) AS refusal
FROM unnest($1::text[]) WITH ORDINALITY AS c (name, place)
LEFT JOIN sync_vector_delay d ON d.collection = c.name
ORDER BY c.place
