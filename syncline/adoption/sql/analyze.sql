-- Until a tenth of its rows has changed, Postgres has no statistics of a new column by itself.
ANALYZE @{table} (sync_xid, @{key})
