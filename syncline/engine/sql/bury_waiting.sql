-- A version that was refused replaces one that waits.
DELETE FROM sync_parked_row WHERE table_name = $1 AND row_id = ANY ($2::uuid[])
