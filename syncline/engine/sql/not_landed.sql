SELECT table_name, count(*) FILTER (WHERE NOT dead) AS parked, count(*) FILTER (WHERE dead) AS dead
FROM (
    SELECT table_name, false AS dead FROM sync_parked_row
    UNION ALL SELECT table_name, false FROM sync_parked_reference
    UNION ALL SELECT table_name, true FROM sync_dead_letter
) AS waiting
GROUP BY table_name
