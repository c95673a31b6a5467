-- The next rows of a target, in the order of its primary key.
SELECT t.id AS row_id, ARRAY[t.key] AS key, ARRAY[t.id] AS after
FROM @{target} t
WHERE $1::uuid[] IS NULL OR t.id > ($1::uuid[])[1]
ORDER BY t.id LIMIT $2
