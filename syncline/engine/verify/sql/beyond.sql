-- The rows that no cycle has read yet, and the keys of those whose end none has.
SELECT s.sync_row_id AS row_id FROM @{rows}
UNION ALL
SELECT row_id FROM (@{deleted}) d
LIMIT @{limit}
