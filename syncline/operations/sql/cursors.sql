SELECT table_name, xid, key FROM sync_cursor WHERE table_name = ANY ($1::text[])
