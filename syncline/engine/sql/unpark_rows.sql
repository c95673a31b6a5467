-- What is still staged lands now; an older version of it must not wait any longer.
DELETE FROM sync_parked_row r USING @{stage} s WHERE r.table_name = @{of_table} AND r.row_id = @{row_id}
