WHEN w.waits_for_table = '@{table}' AND @{named_by} THEN EXISTS (SELECT FROM @{target} t WHERE @{match})
