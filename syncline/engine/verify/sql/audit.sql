INSERT INTO sync_audit (who, action, why, table_name, rows) VALUES ($1, $2, $3, $4, $5) RETURNING number
