-- An entry that was queued again meanwhile has another seq, and stays.
WITH done AS (
    DELETE FROM sync_outbox o USING unnest($1::uuid[], $2::bigint[]) AS d (point_id, seq)
    WHERE o.collection = '@{collection}' AND o.point_id = d.point_id AND o.seq = d.seq
)
INSERT INTO sync_vector (collection, point_id, text_hash, embedding)
SELECT '@{collection}', e.point_id, e.text_hash, $5 FROM unnest($3::uuid[], $4::bytea[]) AS e (point_id, text_hash)
ON CONFLICT (collection, point_id) DO UPDATE SET text_hash = excluded.text_hash, embedding = excluded.embedding
