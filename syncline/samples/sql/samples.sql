-- Load a sample graph.

-- name: key
-- The primary key of a table, in order.
SELECT a.attname::text AS name
FROM pg_index i
CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k (attnum, position)
JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
WHERE i.indrelid = to_regclass($1) AND i.indisprimary
ORDER BY k.position

-- name: stage
CREATE TEMP TABLE @{stage} ON COMMIT DROP AS SELECT @{columns} FROM @{target} WITH NO DATA

-- name: merge
-- A row that says the same already is left alone, so that nothing travels for it.
INSERT INTO @{target} AS t (@{columns})
SELECT @{columns} FROM @{stage}
ON CONFLICT (@{key}) DO UPDATE SET @{assignments}
WHERE (@{current}) IS DISTINCT FROM (@{proposed})

-- name: filled
SELECT EXISTS (SELECT FROM @{table})
