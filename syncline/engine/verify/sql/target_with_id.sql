-- OFFSET 0 again: the id is computed once.
(SELECT t.*, @{row_id} AS sync_row_id FROM @{target} t OFFSET 0) t
