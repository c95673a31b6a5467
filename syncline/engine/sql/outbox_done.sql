-- An entry that was queued again meanwhile has another seq, and stays.
WITH done AS (DELETE FROM sync_outbox WHERE seq = ANY ($1::bigint[]))
INSERT INTO sync_vector (collection, point_id, text_hash, embedding)
SELECT '@{collection}', e.point_id, e.text_hash, $4 FROM unnest($2::uuid[], $3::bytea[]) AS e (point_id, text_hash)
ON CONFLICT (collection, point_id) DO UPDATE SET text_hash = excluded.text_hash, embedding = excluded.embedding
