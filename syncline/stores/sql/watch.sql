-- The state of a backend.

-- name: backend
-- The state of a server process, for a session that waits for it on another connection.
SELECT pg_catalog.pg_is_in_recovery() AS standby, a.state, a.wait_event_type,
       extract(epoch FROM pg_catalog.clock_timestamp() - a.backend_start)::float8 AS age,
       extract(epoch FROM pg_catalog.clock_timestamp() - a.state_change)::float8 AS unchanged
FROM (SELECT) AS one LEFT JOIN pg_catalog.pg_stat_activity AS a ON a.pid = $1
