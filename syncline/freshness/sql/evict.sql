-- A listener whose process is frozen keeps its lock, and the server keeps its place in the queue of notifications.
SELECT pg_terminate_backend(l.pid)
FROM pg_locks l
JOIN syncline.listener r ON r.name = $1 AND r.until < clock_timestamp() - make_interval(secs => $2)
JOIN pg_stat_activity a ON a.pid = l.pid AND a.backend_start < r.until
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND (l.classid::bigint << 32) | l.objid::bigint = hashtextextended('syncline.listener:' || $1, 0)
