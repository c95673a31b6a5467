DELETE FROM sync_vector WHERE collection = $1 AND point_id = ANY ($2::uuid[])
