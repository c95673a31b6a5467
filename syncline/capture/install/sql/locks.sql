-- Sessions that wait for a table's lock, and sessions that hold it.

-- name: holders
-- Sessions with a lock on one of these tables or their partitions, longest first.
WITH locked AS (
    SELECT l.pid, l.virtualtransaction
    FROM pg_locks l
    JOIN pg_database d ON d.oid = l.database AND d.datname = current_database()
    WHERE l.granted AND l.locktype = 'relation' AND l.relation IN (
        SELECT to_regclass(name) FROM unnest($1::text[]) AS name
        UNION ALL
        SELECT t.relid FROM unnest($1::text[]) AS name, pg_partition_tree(to_regclass(name)) AS t
    )
)
SELECT 'pid ' || pid AS holder, coalesce(nullif(application_name, ''), nullif(backend_type, 'client backend')) AS name,
       state, xact_start AS since, extract(epoch FROM clock_timestamp() - xact_start)::float8 AS seconds
FROM pg_stat_activity
WHERE pid IN (SELECT pid FROM locked) AND pid <> pg_backend_pid()
UNION ALL
SELECT 'prepared transaction ' || gid, NULL, NULL, prepared, extract(epoch FROM clock_timestamp() - prepared)
FROM pg_prepared_xacts
WHERE '-1/' || transaction IN (SELECT virtualtransaction FROM locked)
ORDER BY since NULLS LAST, holder

-- name: blockers
-- Sessions that block session $1.
SELECT 'pid ' || pid AS holder, coalesce(nullif(application_name, ''), nullif(backend_type, 'client backend')) AS name,
       state, xact_start AS since, extract(epoch FROM clock_timestamp() - xact_start)::float8 AS seconds
FROM pg_stat_activity
WHERE pid = ANY (pg_blocking_pids($1))
ORDER BY since NULLS LAST, holder
