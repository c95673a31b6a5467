-- A changed row and the word to the vector store that it changed are one statement. Two statements within it, since
-- nobody else writes here: joins cost less than a look for a conflict at every row.
WITH updated AS (
    UPDATE @{target} AS t SET @{assignments}
    FROM (SELECT @{proposed} FROM @{stage} s WHERE s.sync_present) AS p
    WHERE @{same} AND (@{differs})
    RETURNING @{returned}
), inserted AS (
    INSERT INTO @{target} AS t (@{columns})
    SELECT @{values} FROM @{stage} s
    WHERE s.sync_present AND NOT EXISTS (SELECT FROM @{target} t WHERE @{here})@{order}
    RETURNING @{returned}
), changed AS (
    SELECT * FROM updated UNION ALL SELECT * FROM inserted
)@{queue}@{touched}@{rematch}
SELECT count(*) FROM changed
