UPDATE sync_parked_row r SET released = true
FROM @{stage} s
WHERE NOT r.released AND r.waits_for_table = '@{table}' AND r.waits_for = s.row_id AND s.present
