WITH mine AS (UPDATE sync_state SET progress = $2::text::jsonb WHERE fence = $1 AND current_schema() = $3::text RETURNING 1) SELECT count(*) FROM mine
