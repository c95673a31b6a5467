-- A changed row and the word to the vector store that it changed are one statement.
WITH changed AS (
    INSERT INTO @{target} AS t (@{columns})
    SELECT @{values} FROM @{stage} s WHERE s.sync_present@{order}
    ON CONFLICT (@{target_key}) DO UPDATE SET @{assignments}
    WHERE @{differs}
    RETURNING @{returned}
)@{queue}@{touched}@{rematch}
SELECT count(*) FROM changed
