-- A row that says the same already is left alone, so that nothing travels for it.
INSERT INTO @{target} AS t (@{columns})
SELECT @{columns} FROM @{stage}
ON CONFLICT (@{key}) DO UPDATE SET @{assignments}
WHERE (@{current}) IS DISTINCT FROM (@{proposed})
