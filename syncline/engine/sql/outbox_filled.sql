SELECT EXISTS (SELECT FROM sync_vector WHERE collection = $1)
