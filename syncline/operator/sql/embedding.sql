-- The generations of a graph's collections, for who changes its embedding: how far each is, what another costs.

-- name: embedding_counts
-- By collection, as the bookkeeping tables name it. Counts of entries are kept by triggers.
SELECT c.name AS collection,
       (SELECT count(*) FROM sync_vector v WHERE v.collection = c.name AND v.text_hash <> '') AS confirmed,
       coalesce((
           SELECT entries FROM sync_count k WHERE k.counted = 'sync_outbox' AND k.name = c.name AND NOT k.refused
       ), 0) AS owed,
       coalesce((
           SELECT entries FROM sync_count k WHERE k.counted = 'sync_outbox' AND k.name = c.name AND k.refused
       ), 0) AS refused,
       d.error
FROM unnest($1::text[]) WITH ORDINALITY AS c (name, place)
LEFT JOIN sync_vector_delay d ON d.collection = c.name
ORDER BY c.place

-- name: embedding_behind
-- What the second generation owes of which the main one owes nothing, and refuses that the main one does not.
SELECT count(*) FILTER (WHERE s.error IS NULL) AS owed, count(*) FILTER (WHERE s.error IS NOT NULL) AS refused
FROM unnest($1::text[], $2::text[]) AS c (main, second)
JOIN sync_outbox s ON s.collection = c.second
WHERE NOT EXISTS (
    SELECT FROM sync_outbox m
    WHERE m.collection = c.main AND m.point_id = s.point_id AND (s.error IS NULL OR m.error IS NOT NULL)
)

-- name: embedding_texts
-- Points and different texts that the main generation has; those that wait have no vector yet.
SELECT (SELECT count(*) FROM sync_vector WHERE collection = ANY ($1::text[])) AS points,
       (SELECT count(*) FROM (SELECT DISTINCT text_hash FROM sync_vector WHERE collection = ANY ($1::text[])) t) AS texts,
       (
           SELECT count(*) FROM sync_outbox o WHERE o.collection = ANY ($1::text[]) AND NOT EXISTS (
               SELECT FROM sync_vector v WHERE v.collection = o.collection AND v.point_id = o.point_id
           )
       ) AS waiting

-- name: embedding_length
-- The bytes of texts of a table, by its first rows.
SELECT count(*) AS texts, coalesce(sum(octet_length(t.text)), 0)::bigint AS bytes
FROM (SELECT (@{text})::text AS text FROM @{target} LIMIT 10000) t
WHERE t.text IS NOT NULL
