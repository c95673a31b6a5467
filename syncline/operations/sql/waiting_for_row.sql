SELECT table_name AS "table", name, count(*) AS waiting, min(since) AS since
FROM (
    SELECT table_name, NULL AS name, since FROM sync_parked_row
    WHERE NOT released AND waits_for_table = $1 AND waits_for = ANY ($2::uuid[])
    UNION ALL
    SELECT table_name, name, since FROM sync_parked_reference
    WHERE waits_for_table = $1 AND waits_for = ANY ($2::uuid[])
) AS waiting
GROUP BY table_name, name
ORDER BY waiting DESC, table_name, name
