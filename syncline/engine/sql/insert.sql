-- The merge of a batch that holds no row which the target has: there is nothing to compare.
WITH changed AS (
    INSERT INTO @{target} AS t (@{columns})
    SELECT @{values} FROM @{stage} s WHERE s.sync_present@{order}
    RETURNING @{returned}
)@{queue}@{touched}
SELECT count(*) FROM changed
