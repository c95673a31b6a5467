-- Which of some keys the write-db has, whatever its rows say.
SELECT ARRAY[@{key}] AS key FROM @{source} WHERE (@{key}) IN (SELECT * FROM unnest(@{parameters}))
