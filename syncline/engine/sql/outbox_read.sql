-- A row without a text has no point, like a row that is gone.
-- The projection is taken from the row as it is now, so a point is never written with an older text.
-- Entries are read once: those before $3 may be deleted and still there, while someone reads the past.
-- OFFSET 0 keeps each lookup a lookup by key: a queue's size changes too fast for the planner's statistics,
-- and a join planned over an empty table is a disaster over a full one.
SELECT o.point_id, o.seq, projected.text IS NOT NULL AS present, projected.text, projected.payload,
       sha256(convert_to(projected.text, 'UTF8')) AS text_hash,
       v.text_hash IS NOT DISTINCT FROM sha256(convert_to(projected.text, 'UTF8'))
           AND v.embedding IS NOT DISTINCT FROM $2 AS unchanged
FROM (SELECT point_id, seq FROM sync_outbox WHERE collection = '@{collection}' AND seq > $3 ORDER BY seq LIMIT $1) AS o
LEFT JOIN LATERAL (SELECT * FROM @{target} WHERE id = o.point_id OFFSET 0) AS t ON true
LEFT JOIN LATERAL (
    SELECT text_hash, embedding FROM sync_vector
    WHERE collection = '@{collection}' AND point_id = o.point_id OFFSET 0
) AS v ON true
LEFT JOIN LATERAL (
    SELECT @{text} AS text, jsonb_build_object(@{payload})::text AS payload WHERE t.id IS NOT NULL
) AS projected ON true
ORDER BY o.seq
