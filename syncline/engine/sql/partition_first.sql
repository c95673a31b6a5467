SELECT sync_xid::text::bigint FROM @{partition} ORDER BY sync_xid LIMIT 1
