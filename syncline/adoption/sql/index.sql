CREATE INDEX @{how}IF NOT EXISTS @{name} ON @{table} (sync_xid, @{key})
