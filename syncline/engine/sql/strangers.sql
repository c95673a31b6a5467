-- Rows of a target under other ids than the map's, and what refers to them.

-- name: strangers_any
SELECT EXISTS (SELECT FROM @{target} t WHERE @{strange})

-- name: strangers_leave
DELETE FROM @{target} t WHERE @{strange}

-- name: strangers_referring
-- The foreign keys that refer to a table, but for those that give up their reference by themselves.
SELECT n.nspname AS child_schema, c.relname AS child_name, k.confdeltype = 'c' AS cascades,
       (SELECT bool_and(NOT a.attnotnull) FROM unnest(k.conkey) u (n)
        JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.n) AS nullable,
       (SELECT array_agg(a.attname::text ORDER BY u.place) FROM unnest(k.conkey) WITH ORDINALITY u (n, place)
        JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.n) AS here,
       (SELECT array_agg(a.attname::text ORDER BY u.place) FROM unnest(k.confkey) WITH ORDINALITY u (n, place)
        JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.n) AS there
FROM pg_constraint k
JOIN pg_class c ON c.oid = k.conrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE k.contype = 'f' AND k.conparentid = 0 AND k.confrelid = to_regclass($1) AND k.confdeltype IN ('a', 'r', 'c')
ORDER BY 1, 2, k.conname

-- name: strangers_refers
EXISTS (SELECT FROM @{parent} @{alias} WHERE @{same} AND @{strange})

-- name: strangers_referring_leave
DELETE FROM @{child} @{alias} WHERE @{refers}

-- name: strangers_unrefer
UPDATE @{child} @{alias} SET @{unset} WHERE @{refers}
