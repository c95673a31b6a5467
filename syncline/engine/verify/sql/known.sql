SELECT DISTINCT row_id FROM (@{books}) b LIMIT @{limit}
