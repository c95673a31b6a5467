DELETE FROM sync_vector WHERE collection = '@{collection}' AND point_id = ANY ($1::uuid[])
