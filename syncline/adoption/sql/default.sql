ALTER TABLE @{table} ALTER COLUMN sync_xid SET DEFAULT pg_current_xact_id()
