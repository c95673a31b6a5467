-- The staged version of a row says anew which of its links and references wait.
DELETE FROM sync_parked_reference r USING @{stage} s WHERE r.table_name = @{of_table} AND r.owner = s.sync_row_id
