DELETE FROM sync_vector_delay WHERE collection = $1 RETURNING since
