-- End session $2, called $3, if it still holds the lock of the graph in schema $1: nobody else's, and no other one
-- that has its number by now.
SELECT pg_catalog.pg_terminate_backend(a.pid)
FROM pg_catalog.pg_locks l
JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 AND l.pid <> pg_backend_pid()
  AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
  AND (l.classid::bigint << 32) | l.objid::bigint = hashtextextended('syncline:' || $1::text, 0)
  AND a.pid = $2 AND a.application_name = $3 AND a.usename = current_user
