(SELECT s.*, @{row_id} AS sync_row_id FROM (SELECT @{key} FROM @{source} WHERE @{beyond} OFFSET 0) s OFFSET 0) s
