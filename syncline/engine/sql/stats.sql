-- Counted again from what is there: a number can be late, it cannot drift. Set-wise, so that Postgres chooses between
-- looking up few and reading all once.
WITH touched AS MATERIALIZED (
    SELECT DISTINCT u.id FROM pg_temp.sync_touched u WHERE u.counted IN (@{labels})
)@{numbers}, found AS MATERIALIZED (
    SELECT @{found} FROM touched u JOIN @{target} o ON o.id = u.id@{joins}
)@{updated}
INSERT INTO @{stats} (@{columns})
SELECT @{columns} FROM found f WHERE NOT EXISTS (SELECT FROM @{stats} t WHERE t.@{owner} = f.@{owner})
