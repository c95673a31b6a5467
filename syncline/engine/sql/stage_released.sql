-- Rows whose parent has landed come back through the stage. They leave sync_parked_row only when they land.
INSERT INTO @{stage} (@{columns})
SELECT @{values}
FROM (SELECT image FROM sync_parked_row WHERE table_name = '@{table}' AND released LIMIT $1) p,
     jsonb_to_record(p.image) AS r (@{texts})
