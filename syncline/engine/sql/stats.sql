-- Counted again from what is there: a number can be late, it cannot drift. Set-wise, so that Postgres chooses between
-- looking up few and reading all once.
WITH touched AS MATERIALIZED (
    SELECT DISTINCT u.id FROM pg_temp.sync_touched u WHERE u.counted = '@{counted}'
), numbers AS (
    SELECT sync_touched_id, @{values} FROM (@{rows}) c GROUP BY sync_touched_id
)
INSERT INTO @{stats} AS t (@{owner}, @{columns})
SELECT o.id, @{found}
FROM touched u
JOIN @{target} o ON o.id = u.id
LEFT JOIN numbers n ON n.sync_touched_id = u.id
CROSS JOIN (SELECT @{values} FROM @{counted_table} c WHERE false) AS none
ON CONFLICT (@{owner}) DO UPDATE SET @{assignments}
WHERE (@{current}) IS DISTINCT FROM (@{proposed})
