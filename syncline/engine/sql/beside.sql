AND NOT EXISTS (SELECT FROM @{stage} o WHERE o.sync_row_id = s.@{reference_id} AND o.sync_present)
