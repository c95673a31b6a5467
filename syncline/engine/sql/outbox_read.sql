-- A row without a text has no point, like a row that is gone.
-- The projection is taken from the row as it is now, so a point is never written with an older text.
-- Entries are read once: those before $3 may be deleted and still there, while someone reads the past.
-- A batch ends with the entry that fills its bytes; only sizes are summed up, so nothing large is held for it.
-- OFFSET 0 keeps each lookup a lookup by key: a queue's size changes too fast for the planner's statistics,
-- and a join planned over an empty table is a disaster over a full one.
SELECT o.point_id, o.seq, projected.text IS NOT NULL AS present, projected.text, projected.text_hash,
       @{payload} AS payload,
       v.text_hash IS NOT DISTINCT FROM projected.text_hash AND v.embedding IS NOT DISTINCT FROM $5 AS unchanged
FROM (
    SELECT sized.point_id, sized.seq
    FROM (
        SELECT q.point_id, q.seq,
               coalesce(sum(s.size) OVER (ORDER BY q.seq ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS before
        FROM (
            SELECT point_id, seq FROM sync_outbox
            WHERE collection = $1 AND error IS NULL AND seq > $3 ORDER BY seq LIMIT $2
        ) AS q
        LEFT JOIN LATERAL (SELECT @{size} AS size FROM @{target} t WHERE t.id = q.point_id OFFSET 0) AS s ON true
    ) AS sized
    WHERE sized.before < $4
    ORDER BY sized.seq
) AS o
LEFT JOIN LATERAL (SELECT * FROM @{target} WHERE id = o.point_id OFFSET 0) AS t ON true
LEFT JOIN LATERAL (
    SELECT text_hash, embedding FROM sync_vector WHERE collection = $1 AND point_id = o.point_id OFFSET 0
) AS v ON true
LEFT JOIN LATERAL (
    SELECT p.text, p.fields, sha256(convert_to(p.text, 'UTF8')) AS text_hash
    FROM (SELECT @{text} AS text, @{fields} AS fields WHERE t.id IS NOT NULL OFFSET 0) AS p
    OFFSET 0
) AS projected ON true
ORDER BY o.seq
