-- The map that a graph-db is synced by, and what is done when it changes.

-- name: mapped_read
SELECT table_name, definition::text AS definition, gone, recount, filling FROM sync_mapped

-- name: mapped_write
-- Counts that are to be made again begin anew; those of a table whose counts are not concerned go on.
INSERT INTO sync_mapped AS m (table_name, definition, recount)
SELECT u.name, u.definition::jsonb, u.recount
FROM unnest($1::text[], $2::text[], $3::boolean[]) AS u (name, definition, recount)
ON CONFLICT (table_name) DO UPDATE SET
    definition = excluded.definition, gone = false, recount = m.recount OR excluded.recount,
    recounted = CASE WHEN excluded.recount THEN NULL ELSE m.recounted END

-- name: mapped_fill
-- Rows below the transactions $2 are read again, from the first on.
WITH anew AS (
    DELETE FROM sync_cursor WHERE table_name = ANY ($3::text[])
)
UPDATE sync_mapped m SET filling = u.bound
FROM unnest($1::text[], $2::bigint[]) AS u (name, bound) WHERE m.table_name = u.name

-- name: mapped_filled
WITH done AS (
    DELETE FROM sync_cursor WHERE table_name = ANY ($2::text[])
)
UPDATE sync_mapped SET filling = NULL WHERE table_name = ANY ($1::text[])

-- name: mapped_complete
UPDATE sync_state SET map_hash = $1

-- name: mapped_probe
SELECT '@{name}', EXISTS (SELECT FROM @{target})

-- name: mapped_with_rows
-- Which of the tables have a row.
SELECT f.name FROM (@{filled}) AS f (name, filled) WHERE f.filled

-- name: mapped_unpark
-- Rows that are all read again are parked again, by the map of now; the images are of the map before.
DELETE FROM sync_parked_row WHERE table_name = ANY ($1::text[])

-- name: mapped_unlink
DELETE FROM sync_parked_reference WHERE table_name = $1 AND name = ANY ($2::text[])

-- name: mapped_relist
-- The target ids of rows of rule hash: their row ids, or none, since those are meant without one.
UPDATE sync_row SET target_id = CASE WHEN $2 THEN row_id::text END WHERE table_name = $1

-- name: mapped_left
-- Nothing waits for the tables $1 any longer; should one return, it is read from the beginning.
WITH requeue AS (
    DELETE FROM sync_requeue WHERE table_name = ANY ($1::text[])
), letters AS (
    DELETE FROM sync_dead_letter WHERE table_name = ANY ($1::text[])
), rows AS (
    DELETE FROM sync_parked_row WHERE table_name = ANY ($1::text[])
), parts AS (
    DELETE FROM sync_parked_reference WHERE table_name = ANY ($1::text[])
), comparisons AS (
    DELETE FROM sync_comparison WHERE table_name = ANY ($1::text[])
), cursors AS (
    DELETE FROM sync_cursor WHERE table_name = ANY ($1::text[]) OR table_name = ANY ($2::text[])
), sources AS (
    DELETE FROM sync_source WHERE table_name = ANY ($1::text[])
)
UPDATE sync_mapped SET gone = true, recount = false WHERE table_name = ANY ($1::text[])

-- name: mapped_unqueue
-- Points of collections that are no longer written. What sync_vector knows of them stays true.
WITH delays AS (
    DELETE FROM sync_vector_delay WHERE collection = ANY ($1::text[])
)
DELETE FROM sync_outbox WHERE collection = ANY ($1::text[])

-- name: mapped_queue
-- Every row's point, and every point without a row: one that left while the collection was not written. Also those
-- that only a second generation has, for which is queued what is queued here.
INSERT INTO sync_outbox (collection, point_id)
SELECT $1::text, @{id} FROM @{target}
UNION SELECT $1::text, point_id FROM sync_vector WHERE collection IN ($1::text, $1::text || '@@second')
ON CONFLICT (collection, point_id) DO UPDATE SET
    seq = excluded.seq, queued_at = excluded.queued_at, attempts = 0, next_retry_at = NULL, error = NULL

-- name: mapped_touch
-- One point: before it is written, the collection gets its indexes, and so does that of a second generation,
-- for which only what is queued anew is queued too.
INSERT INTO sync_outbox (collection, point_id) SELECT $1, @{id} FROM @{target} ORDER BY @{order} LIMIT 1
ON CONFLICT (collection, point_id) DO UPDATE SET seq = excluded.seq

-- name: recounted
SELECT recounted FROM sync_mapped WHERE table_name = $1

-- name: recount_moved
UPDATE sync_mapped SET recount = NOT $2, recounted = $3 WHERE table_name = $1
