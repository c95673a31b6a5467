SELECT table_name, count(*) AS parked
FROM (SELECT table_name FROM sync_parked_row UNION ALL SELECT table_name FROM sync_parked_reference) AS waiting
GROUP BY table_name
