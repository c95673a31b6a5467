INSERT INTO sync_cursor AS c (table_name, xid) VALUES ($1, $2)
ON CONFLICT (table_name) DO UPDATE SET xid = excluded.xid, key = NULL WHERE c.xid < excluded.xid
