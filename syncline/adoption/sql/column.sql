-- A constant default rewrites nothing: rows that are there read as 0, which every cursor begins at.
ALTER TABLE @{table} ADD COLUMN sync_xid xid8 NOT NULL DEFAULT '0'
