-- What landed, or waits for a parent, is no dead letter any longer.
DELETE FROM sync_dead_letter d
WHERE d.table_name = '@{table}'
  AND (EXISTS (SELECT FROM @{stage} s WHERE @{row_id} = d.row_id)
       OR EXISTS (SELECT FROM sync_parked_row r WHERE r.table_name = d.table_name AND r.row_id = d.row_id))
