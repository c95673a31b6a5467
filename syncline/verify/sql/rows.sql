-- Rows of both stores, and pending rows.

-- name: passed
-- OFFSET 0 separates the levels: expressions are evaluated for captured rows only, and each hash once, not
-- once per use of its value.
(SELECT s.*, @{row_id} AS sync_row_id
 FROM (
    SELECT @{columns} FROM (SELECT * FROM @{source} WHERE @{captured} OFFSET 0) AS @{name}
    WHERE (@{present}) IS TRUE OFFSET 0
 ) s OFFSET 0) s

-- name: coming
(SELECT s.*, @{row_id} AS sync_row_id FROM (SELECT @{key} FROM @{source} WHERE @{beyond} OFFSET 0) s OFFSET 0) s

-- name: deleted
SELECT @{row_id} AS row_id, ARRAY[@{key}] AS key
FROM (SELECT key FROM @{tombstones} WHERE @{beyond}) d

-- name: not_refused
(@{key}) NOT IN (SELECT * FROM unnest(@{parameters}))

-- name: listed_source
SELECT s.sync_row_id AS row_id, ARRAY[@{key}] AS key, false AS coming, @{hash} AS hash
FROM @{passed}
WHERE get_bit($2::bytea, @{bucket}) = 1 OR s.sync_row_id IN (SELECT unnest($1::uuid[]))
UNION ALL
SELECT s.sync_row_id, ARRAY[@{key}], true, NULL
FROM @{coming}
WHERE get_bit($2::bytea, @{bucket}) = 1 OR s.sync_row_id IN (SELECT unnest($1::uuid[]))
ORDER BY 1

-- name: listed_target
SELECT @{row_id} AS row_id, ARRAY[@{key}] AS key, @{waits} AS waits, @{hash} AS hash
FROM @{rows}
WHERE get_bit($2::bytea, @{bucket}) = 1 OR @{row_id} IN (SELECT unnest($1::uuid[]))
ORDER BY 1

-- name: state_entries
-- What the bookkeeping tables have about a table's rows that are parked, rejected or requested.
SELECT row_id, key, 'asked' AS kind, false AS stuck FROM sync_requeue WHERE table_name = '@{table}'
UNION ALL
SELECT row_id, key, 'dead', false FROM sync_dead_letter WHERE table_name = '@{table}'
UNION ALL
SELECT r.row_id, r.key, 'parked', NOT r.released AND (@{stuck})
FROM sync_parked_row r WHERE r.table_name = '@{table}'
UNION ALL
SELECT r.owner, NULL, 'waiting', false
FROM sync_parked_reference r WHERE r.table_name = '@{table}' AND r.name IN (@{names})

-- name: beyond
-- The rows that no cycle has read yet, and the deleted keys that none has read.
SELECT s.sync_row_id AS row_id FROM @{rows}
UNION ALL
SELECT row_id FROM (@{deleted}) d
LIMIT @{limit}

-- name: still_there
-- Which keys the write-db has, whatever their rows contain.
SELECT ARRAY[@{key}] AS key FROM @{source} WHERE (@{key}) IN (SELECT * FROM unnest(@{parameters}))

-- name: refused
SELECT key, row_id FROM sync_dead_letter WHERE table_name = $1 LIMIT $2
