-- Who keeps session $1 waiting.
SELECT 'pid ' || pid AS holder, coalesce(nullif(application_name, ''), nullif(backend_type, 'client backend')) AS name,
       state, xact_start AS since, extract(epoch FROM clock_timestamp() - xact_start)::float8 AS seconds
FROM pg_stat_activity
WHERE pid = ANY (pg_blocking_pids($1))
ORDER BY since NULLS LAST, holder
