EXISTS (SELECT FROM @{table} WHERE sync_xid >= $1::text::xid8)
