-- Which session holds the lock of the graph in schema $1: a worker's, or that of anybody who may connect.
SELECT l.pid, a.usename::text AS role, nullif(a.application_name, '') AS application_name, a.backend_start AS since,
       CASE a.state WHEN 'idle' THEN a.state_change END AS idle_since,
       coalesce(a.usename = current_user, false) AS own, clock_timestamp() AS now
FROM pg_catalog.pg_locks l
LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 AND l.pid <> pg_backend_pid()
  AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
  AND (l.classid::bigint << 32) | l.objid::bigint = hashtextextended('syncline:' || $1::text, 0)
ORDER BY a.backend_start NULLS LAST LIMIT 1
