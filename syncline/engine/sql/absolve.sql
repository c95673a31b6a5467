-- What landed is no dead letter any longer.
DELETE FROM sync_dead_letter d USING @{stage} s WHERE d.table_name = @{of_table} AND d.row_id = @{row_id}
