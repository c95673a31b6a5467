AND NOT EXISTS (SELECT FROM @{stage} o WHERE o.row_id = s.@{reference_id} AND o.present)
