-- The parent is named by a value that it has. Byte by byte too: there are collations in which `a` is `A`. The first
-- comparison serves the index.
UPDATE @{stage} s
SET @{reference_id} = (SELECT p.id FROM @{parent} p WHERE p.@{by} = s.@{reference} AND p.@{by}::text COLLATE "C" = s.@{reference} ORDER BY p.id LIMIT 1)
