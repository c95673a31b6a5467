-- Rows by key, whatever the cursor says: those that are asked for again.
SELECT @{selection}
FROM @{source}
WHERE (@{key}) IN (SELECT @{given} FROM unnest(@{parameters}) AS k (@{names}))
