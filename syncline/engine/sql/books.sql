-- What the books know of rows like those of a batch: first entries by the order of an index, as in ledger_read.
SELECT (SELECT row_id FROM sync_parked_row ORDER BY table_name, row_id LIMIT 1) IS NOT NULL AS rows,
       (SELECT owner FROM sync_parked_reference ORDER BY owner LIMIT 1) IS NOT NULL AS references,
       (
           SELECT row_id FROM sync_dead_letter WHERE table_name = '@{table}' ORDER BY table_name, row_id LIMIT 1
       ) IS NOT NULL AS letters,
       @{known} AS known
