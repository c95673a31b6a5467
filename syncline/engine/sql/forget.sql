-- Rows whose keys are no text, which the write-db has no longer: nothing but their refusal was ever known of them here.
DELETE FROM sync_dead_letter WHERE table_name = $1 AND row_id = ANY ($2::uuid[])
