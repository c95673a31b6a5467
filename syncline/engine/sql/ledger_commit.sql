-- The cursor moves in the transaction of its batch, and only for the holder of the fence,
-- and only in the schema that it is meant for.
WITH mine AS (
    UPDATE sync_state SET progress = $2::text::jsonb WHERE fence = $1 AND current_schema() = $6::text RETURNING 1
), moved AS (
    INSERT INTO sync_cursor (table_name, xid, key) SELECT $3, $4, $5::text[] FROM mine
    ON CONFLICT (table_name) DO UPDATE SET xid = excluded.xid, key = excluded.key
)
SELECT count(*) FROM mine
