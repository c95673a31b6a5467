SELECT d.id AS row_id, t.xmin::text AS version, o.point_id IS NOT NULL AS owed,
       (SELECT fence FROM sync_state) AS fence
FROM unnest($2::uuid[]) AS d (id)
LEFT JOIN @{target} t ON t.id = d.id
LEFT JOIN sync_outbox o ON o.collection = $1 AND o.point_id = d.id
