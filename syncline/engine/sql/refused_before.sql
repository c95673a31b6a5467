-- As what version a row was refused before, and how.
SELECT version, sqlstate FROM sync_dead_letter WHERE table_name = $1 AND row_id = $2
