-- Counted again from what is there: a number can be late, it cannot drift.
INSERT INTO @{stats} AS t (@{owner}, @{columns})
SELECT o.id, n.*
FROM (SELECT DISTINCT id FROM pg_temp.sync_touched WHERE counted = '@{counted}') u
JOIN @{target} o ON o.id = u.id
CROSS JOIN LATERAL (SELECT @{values} FROM (@{rows}) c) AS n
ON CONFLICT (@{owner}) DO UPDATE SET @{assignments}
WHERE (@{current}) IS DISTINCT FROM (@{proposed})
