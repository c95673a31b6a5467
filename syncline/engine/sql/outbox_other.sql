-- Vectors of another embedding service are not comparable with those of the present one.
INSERT INTO sync_outbox (collection, point_id)
SELECT collection, point_id FROM sync_vector WHERE collection = $1 AND embedding <> $2
ON CONFLICT (collection, point_id) DO NOTHING
