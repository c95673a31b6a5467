SELECT c.name AS collection, d.since, d.next_retry_at, d.error, o.owed, o.refused, o.refusal
FROM unnest($1::text[]) WITH ORDINALITY AS c (name, place)
LEFT JOIN sync_vector_delay d ON d.collection = c.name
CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE error IS NULL) AS owed, count(error) AS refused, min(error) AS refusal
    FROM sync_outbox WHERE collection = c.name
) AS o
ORDER BY c.place
