-- An entry that was queued again meanwhile has another seq, and stays.
-- All that was read was without an error; to say so finds it by the index of those.
WITH done AS (
    DELETE FROM sync_outbox WHERE collection = $1 AND error IS NULL AND seq = ANY ($2::bigint[])
)
INSERT INTO sync_vector (collection, point_id, text_hash, embedding)
SELECT $1, e.point_id, e.text_hash, $5 FROM unnest($3::uuid[], $4::bytea[]) AS e (point_id, text_hash)
ON CONFLICT (collection, point_id) DO UPDATE SET text_hash = excluded.text_hash, embedding = excluded.embedding
