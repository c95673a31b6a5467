-- Compare two providers' results.

-- name: fences
SELECT l.fence AS live, s.fence AS shadow FROM @{live}.sync_state l, @{shadow}.sync_state s

-- name: columns
-- The columns of a table with graph data; the others are the engine's.
SELECT a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type
FROM pg_attribute a
WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped AND a.attname !~ '^sync_'
ORDER BY a.attnum

-- name: pairs
SELECT count(*) FROM @{live} l JOIN @{shadow} s ON @{same_key}

-- name: differing
-- The rows that one side lacks, or that differ.
SELECT @{row_id} AS row_id, ARRAY[@{key}] AS key,
       s.@{first} IS NULL AS missing, l.@{first} IS NULL AS extra,
       array_remove(ARRAY[@{columns}]::text[], NULL) AS columns
FROM @{live} l FULL JOIN @{shadow} s ON @{same_key}
WHERE l.@{first} IS NULL OR s.@{first} IS NULL OR @{differs}
ORDER BY 1

-- name: told_key
coalesce(
    @{live},
    @{shadow},
    @{id}::text
)
