-- What cannot be without a row that leaves, leaves with it.
INSERT INTO pg_temp.sync_gone (table_name, row_id, key, again)
SELECT '@{child_name}', t.id, ARRAY[t.key], true
FROM @{child} t JOIN pg_temp.sync_gone g ON g.table_name = '@{parent_name}' AND g.row_id = t.@{reference}
ON CONFLICT DO NOTHING
