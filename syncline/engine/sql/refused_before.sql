-- Whether a row was refused in the same way before.
SELECT EXISTS (SELECT FROM sync_dead_letter WHERE table_name = $1 AND row_id = $2 AND sqlstate = $3)
