-- Without what is known of its vector a point is embedded and written anew; one whose row is gone is deleted.
WITH forgotten AS (
    DELETE FROM sync_vector WHERE collection = $1 AND point_id = ANY ($3::uuid[])
), asked AS (
    INSERT INTO sync_outbox (collection, point_id) SELECT $1, d.id FROM unnest($2::uuid[]) AS d (id)
    ON CONFLICT (collection, point_id) DO UPDATE SET
        seq = excluded.seq, queued_at = excluded.queued_at, attempts = 0, next_retry_at = NULL, error = NULL
    RETURNING 1
)
SELECT count(*) FROM asked
