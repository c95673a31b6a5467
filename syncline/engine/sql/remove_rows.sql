-- A row that leaves and the word to the vector store that it left are one statement.
WITH changed AS (
    DELETE FROM @{target} t USING pg_temp.sync_gone g WHERE g.table_name = '@{table}' AND @{same_row}
    RETURNING @{returned}
)@{queue}@{touched}@{restored}
SELECT count(*) FROM changed
