-- Collections of a graph in the vector store, as its bookkeeping tables have them.

-- name: collections_missed
-- Queue one point of each: the cycle that writes it finds the collection gone, and queues all others.
INSERT INTO sync_outbox (collection, point_id)
SELECT DISTINCT ON (v.collection) v.collection, v.point_id
FROM sync_vector AS v
WHERE v.collection = ANY ($1::text[])
ORDER BY v.collection, v.point_id
ON CONFLICT (collection, point_id) DO NOTHING
