-- The generations of a graph's collections: a main one, and a second while its embedding model changes.

-- name: generations
-- A reader may be newer than the bookkeeping tables: without the column there is no second either.
SELECT (to_jsonb(s) ->> 'vector_generation')::int AS main FROM sync_state s

-- name: second
SELECT generation, started_at, filled_at, switched_at FROM sync_second

-- name: second_orphans
-- Entries of a second generation that there is not: a transaction that queued them had begun before its end.
DELETE FROM sync_outbox WHERE collection LIKE '%@@second' AND NOT EXISTS (SELECT FROM sync_second)

-- name: second_filled
-- In the transaction that settles its last entry: $1 are the names of its collections. Triggers keep the counts.
UPDATE sync_second SET filled_at = clock_timestamp()
WHERE filled_at IS NULL AND NOT EXISTS (
    SELECT FROM sync_count k
    WHERE k.counted = 'sync_outbox' AND k.name = ANY ($1::text[]) AND NOT k.refused AND k.entries > 0
)
RETURNING started_at
