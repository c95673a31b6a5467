-- Points of the vector store.

-- name: points
-- The points that the vector store should have, and whether they are queued: rows, and points of deleted
-- rows.
SELECT coalesce(@{point}, o.point_id) AS row_id, CASE WHEN t.@{id} IS NOT NULL THEN ARRAY[@{key}] END AS key,
       CASE WHEN t.@{id} IS NOT NULL AND @{text} IS NOT NULL THEN (@{payload})::text END AS payload, t.xmin::text AS version,
       o.point_id IS NOT NULL AS owed, o.error IS NOT NULL AS refused, o.next_retry_at IS NOT NULL AS retried,
       v.embedding IS NOT DISTINCT FROM $2
           AND v.text_hash IS NOT DISTINCT FROM sha256(convert_to(@{text}, 'UTF8')) AS known
FROM @{target} t
FULL JOIN (SELECT * FROM sync_outbox WHERE collection = $1) o ON o.point_id = @{point}
LEFT JOIN sync_vector v ON v.collection = $1 AND v.point_id = @{point}
ORDER BY 1

-- name: points_now
SELECT d.id AS row_id, t.xmin::text AS version, o.point_id IS NOT NULL AS owed,
       (SELECT fence FROM sync_state) AS fence
FROM unnest($2::uuid[]) AS d (id)
LEFT JOIN @{target} t ON @{point} = d.id
LEFT JOIN sync_outbox o ON o.collection = $1 AND o.point_id = d.id

-- name: fence
SELECT fence FROM sync_state

-- name: delay
SELECT error FROM sync_vector_delay WHERE collection = $1

-- name: known
SELECT DISTINCT row_id FROM (@{entries}) b LIMIT @{limit}
