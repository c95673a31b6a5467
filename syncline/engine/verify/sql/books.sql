-- What the graph-db's books know of the rows of a table that are not simply there.
SELECT row_id, key, 'asked' AS kind, false AS stuck FROM sync_requeue WHERE table_name = '@{table}'
UNION ALL
SELECT row_id, key, 'dead', false FROM sync_dead_letter WHERE table_name = '@{table}'
UNION ALL
SELECT r.row_id, r.key, 'parked', NOT r.released AND (@{stuck})
FROM sync_parked_row r WHERE r.table_name = '@{table}'
UNION ALL
SELECT r.owner, NULL, 'waiting', false
FROM sync_parked_reference r WHERE r.table_name = '@{table}' AND r.name IN (@{names})
