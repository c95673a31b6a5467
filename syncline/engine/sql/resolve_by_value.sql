-- The parent is named by a value that it has.
UPDATE @{stage} s
SET @{reference_id} = (SELECT p.id FROM @{parent} p WHERE p.@{by} = s.@{reference} ORDER BY p.id LIMIT 1)
