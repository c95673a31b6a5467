-- The generations of a graph's collections: a main one, and a second while its embedding model changes.

-- name: generations
SELECT s.vector_generation AS main, n.generation, n.started_at, n.filled_at, n.switched_at
FROM sync_state s LEFT JOIN sync_second n ON true

-- name: second_filled
UPDATE sync_second SET filled_at = clock_timestamp() WHERE generation = $1 AND filled_at IS NULL RETURNING started_at
