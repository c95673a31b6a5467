(SELECT ARRAY[t.key] FROM @{target} t WHERE t.id = w.row_id)
