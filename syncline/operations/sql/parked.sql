-- Of one table; keyset order, by the keys of both books.
SELECT w.row_id, w.waits_for, nullif(w.name, '') AS name, coalesce(w.key, @{owner_key}, '{}') AS key,
       w.waits_for_table, w.waits_for_key, w.since, w.released
FROM (
    SELECT row_id, '' AS name, waits_for, key, waits_for_table, waits_for_key, since, released
    FROM sync_parked_row WHERE table_name = $1
    UNION ALL
    SELECT owner, name, waits_for, NULL, waits_for_table, waits_for_key, since, false
    FROM sync_parked_reference WHERE table_name = $1
) AS w
WHERE $2::uuid IS NULL OR (w.row_id, w.name, w.waits_for) > ($2, $3::text, $4::uuid)
ORDER BY w.row_id, w.name, w.waits_for
LIMIT $5
