WITH mine AS (
    UPDATE sync_state
    SET progress = $2::text::jsonb, behind_since = CASE WHEN $3 THEN NULL ELSE coalesce(behind_since, now()) END
    WHERE fence = $1 AND current_schema() = $4::text
    RETURNING 1
)
SELECT count(*) FROM mine
