SELECT s.name AS schema, l.pid, a.usename::text AS role, nullif(a.application_name, '') AS application_name,
       coalesce(a.usename = current_user, false) AS own, clock_timestamp() AS now,
       CASE a.state WHEN 'idle' THEN extract(epoch FROM clock_timestamp() - a.state_change)::float8 END AS idle_seconds
FROM unnest($1::text[]) AS s (name)
JOIN pg_locks l ON (l.classid::bigint << 32) | l.objid::bigint = hashtextextended('syncline:' || s.name, 0)
LEFT JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
ORDER BY s.name, l.pid
