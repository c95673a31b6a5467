-- Counted again from what is there: a number can be late, it cannot drift. Set-wise, so that Postgres chooses between
-- looking up few and reading all once.
WITH touched AS MATERIALIZED (
    SELECT DISTINCT u.id FROM pg_temp.sync_touched u WHERE u.counted IN (@{labels})
)@{numbers}
INSERT INTO @{stats} AS t (@{columns})
SELECT @{found}
FROM touched u
JOIN @{target} o ON o.id = u.id@{joins}
ON CONFLICT (@{owner}) DO @{resolution}
