UPDATE sync_parked_row r SET released = true
FROM @{stage} s
WHERE NOT r.released AND r.waits_for_table = '@{table}' AND r.waits_for = s.sync_row_id AND s.sync_present
