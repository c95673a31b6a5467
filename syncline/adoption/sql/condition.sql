SELECT (@{condition}) IS TRUE FROM @{table}
