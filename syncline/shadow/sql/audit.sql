INSERT INTO @{live}.sync_audit (who, action, why, rows, run_id) VALUES ($1, $2, $3, 0, $4)
