INSERT INTO sync_cursor (table_name, xid) VALUES ($1, $2) ON CONFLICT DO NOTHING
