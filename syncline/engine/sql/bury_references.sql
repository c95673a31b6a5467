-- A version that was refused refers to nothing: what the graph-db has is the version before.
DELETE FROM sync_parked_reference WHERE table_name = $1 AND owner = ANY ($2::uuid[])
