SELECT name, waits_for_table, waits_for_key, since, count(*) OVER () AS in_all
FROM sync_parked_reference
WHERE table_name = $1 AND owner = $2
ORDER BY since, name, waits_for
LIMIT $3
