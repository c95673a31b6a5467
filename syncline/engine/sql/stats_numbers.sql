, n@{number} AS (
    SELECT sync_touched_id, @{values} FROM (@{rows}) c GROUP BY sync_touched_id
), none@{number} AS (
    SELECT @{values} FROM @{table} c WHERE false
)
