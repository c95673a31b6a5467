UPDATE sync_parked_row r SET released = true
FROM @{stage} s
WHERE NOT r.released AND r.table_name = '@{child_name}' AND r.waits_for_table = '@{table}' AND s.sync_present
  AND r.waits_for = syncline.key_uuid(s.@{by})
