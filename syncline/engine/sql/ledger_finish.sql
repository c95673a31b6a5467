WITH mine AS (
    UPDATE sync_state SET progress = $2::text::jsonb, drained_at = coalesce($3, drained_at) WHERE fence = $1 RETURNING 1
)
SELECT count(*) FROM mine
