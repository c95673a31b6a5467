, updated AS (
    UPDATE @{stats} t SET (@{columns}) = ROW (@{proposed})
    FROM found f WHERE t.@{owner} = f.@{owner} AND (@{current}) IS DISTINCT FROM (@{proposed})
)
