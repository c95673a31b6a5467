INSERT INTO sync_vector_embedding (collection, embedding) VALUES ($1, $2)
ON CONFLICT (collection) DO UPDATE SET embedding = excluded.embedding
