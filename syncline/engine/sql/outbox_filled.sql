SELECT (SELECT point_id FROM sync_vector WHERE collection = $1 ORDER BY point_id LIMIT 1) IS NOT NULL
