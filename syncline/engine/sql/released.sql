-- The tables of $1 with rows whose parent has landed; by the order of the index, as in ledger_read.
ARRAY(
    SELECT t.name FROM unnest($1::text[]) AS t (name)
    WHERE (
        SELECT r.table_name FROM sync_parked_row r WHERE r.released AND r.table_name >= t.name
        ORDER BY r.table_name LIMIT 1
    ) = t.name
)
