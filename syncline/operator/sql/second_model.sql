-- The second generation of a graph's collections: its start, whom readers look at, its end.

-- name: second_lock
SELECT pg_advisory_xact_lock(hashtextextended('syncline:' || $1, 0))

-- name: second_queueing
-- Others queue without that lock: whoever does so waits, until it is decided for how many generations.
LOCK TABLE sync_outbox IN SHARE ROW EXCLUSIVE MODE

-- name: second_fence
-- Who held the graph before can no longer commit.
UPDATE sync_state SET fence = fence + 1 WHERE current_schema() = $1::text

-- name: second_start
-- A number is never used again: collections of one that was dropped may still be there.
WITH made AS (
    UPDATE sync_state SET vector_generations = vector_generations + 1
    WHERE NOT EXISTS (SELECT FROM sync_second) RETURNING vector_generations
)
INSERT INTO sync_second (generation) SELECT vector_generations FROM made RETURNING generation

-- name: second_forget
-- Entries of an earlier second generation, if it was not dropped whole.
WITH vectors AS (
    DELETE FROM sync_vector WHERE collection LIKE '%@@second'
), delays AS (
    DELETE FROM sync_vector_delay WHERE collection LIKE '%@@second'
), embeddings AS (
    DELETE FROM sync_vector_embedding WHERE collection LIKE '%@@second'
)
DELETE FROM sync_outbox WHERE collection LIKE '%@@second'

-- name: second_queue
INSERT INTO sync_outbox (collection, point_id@{named}) SELECT $1, @{id} FROM @{target}
ON CONFLICT (collection, point_id) DO NOTHING

-- name: second_empty
-- Without a point it is filled.
UPDATE sync_second SET filled_at = started_at
WHERE NOT EXISTS (SELECT FROM sync_outbox WHERE collection LIKE '%@@second')

-- name: second_switched
-- $1: whether readers look at it now.
UPDATE sync_second SET switched_at = CASE WHEN $1::boolean THEN coalesce(switched_at, clock_timestamp()) END

-- name: second_end
DELETE FROM sync_second RETURNING generation

-- name: second_main
-- Nothing is copied to a second generation any more: its row is gone.
UPDATE sync_state SET vector_generation = $1

-- name: main_forget
WITH vectors AS (
    DELETE FROM sync_vector WHERE collection NOT LIKE '%@@second'
), delays AS (
    DELETE FROM sync_vector_delay WHERE collection NOT LIKE '%@@second'
), embeddings AS (
    DELETE FROM sync_vector_embedding WHERE collection NOT LIKE '%@@second'
)
DELETE FROM sync_outbox WHERE collection NOT LIKE '%@@second'

-- name: second_rename
-- What was of the second generation is of the main one. '@@second' are seven characters.
WITH vectors AS (
    UPDATE sync_vector SET collection = left(collection, -7) WHERE collection LIKE '%@@second'
), delays AS (
    UPDATE sync_vector_delay SET collection = left(collection, -7) WHERE collection LIKE '%@@second'
), embeddings AS (
    UPDATE sync_vector_embedding SET collection = left(collection, -7) WHERE collection LIKE '%@@second'
)
UPDATE sync_outbox SET collection = left(collection, -7) WHERE collection LIKE '%@@second'
