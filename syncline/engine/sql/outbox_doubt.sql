-- What is about to be sent: until it is confirmed, nobody can say what the vector store has of these points. Their
-- entries stay, so each is sent whole again.
WITH gone AS (
    DELETE FROM sync_vector WHERE collection = $1 AND point_id = ANY ($2::uuid[])
)
UPDATE sync_vector SET text_hash = '' WHERE collection = $1 AND point_id = ANY ($3::uuid[]) AND text_hash <> ''
