WITH mended AS (
    INSERT INTO @{stats} AS t (@{owner}, @{columns})
    SELECT o.id, @{values}
    @{expected}
    WHERE n.@{owner} IS NULL OR @{differs}
    ON CONFLICT (@{owner}) DO UPDATE SET @{assignments}
    RETURNING 1
)
SELECT count(*) FROM mended
