SELECT table_name, count(*) AS dead FROM sync_dead_letter GROUP BY table_name
