-- The projection is taken from the row as it is now, so a point is never written with an older text.
SELECT o.point_id, o.seq, t.id IS NOT NULL AS present, projected.text, projected.payload,
       sha256(convert_to(projected.text, 'UTF8')) AS text_hash,
       v.text_hash IS NOT DISTINCT FROM sha256(convert_to(projected.text, 'UTF8'))
           AND v.embedding IS NOT DISTINCT FROM $2 AS unchanged
FROM (SELECT point_id, seq FROM sync_outbox WHERE collection = '@{collection}' ORDER BY seq LIMIT $1) AS o
LEFT JOIN @{target} t ON t.id = o.point_id
LEFT JOIN sync_vector v ON v.collection = '@{collection}' AND v.point_id = o.point_id
CROSS JOIN LATERAL (SELECT @{text} AS text, jsonb_build_object(@{payload})::text AS payload) AS projected
ORDER BY o.seq
