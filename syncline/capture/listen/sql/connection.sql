-- The listen connection: lock, lease, snapshot.

-- name: lock
SELECT pg_try_advisory_lock(hashtextextended('syncline.listener:' || $1, 0))

-- name: evict
-- A frozen listener keeps its lock, and the server keeps its place in the notification queue.
SELECT pg_terminate_backend(l.pid)
FROM pg_locks l
JOIN syncline.listener r ON r.name = $1 AND r.until < clock_timestamp() - make_interval(secs => $2)
JOIN pg_stat_activity a ON a.pid = l.pid AND a.backend_start < r.until
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND (l.classid::bigint << 32) | l.objid::bigint = hashtextextended('syncline.listener:' || $1, 0)

-- name: snapshot
SELECT @{horizon}::text::bigint AS xmin, @{next}::text::bigint AS xmax

-- name: last
SELECT heard_below::text::bigint AS heard_below FROM syncline.listener WHERE name = $1

-- name: renew
-- The lease that tells writers that a worker listens, and what it had not received when it was last renewed.
WITH before AS MATERIALIZED (SELECT until, heard_below FROM syncline.listener WHERE name = $1)
INSERT INTO syncline.listener AS l (name, until, heard_below)
VALUES ($1, clock_timestamp() + make_interval(secs => $2), $3::text::xid8)
ON CONFLICT (name) DO UPDATE SET until = excluded.until, heard_below = excluded.heard_below
RETURNING (SELECT until < clock_timestamp() FROM before) AS lapsed

-- name: throttle
-- In the row too, where capture of an earlier release looks, and where nothing else is there or to be written.
WITH muted AS (
    UPDATE ONLY @{state} SET muted_until = clock_timestamp() + make_interval(secs => $1) RETURNING muted_until
)
SELECT setval(q.oid, (extract(epoch FROM m.muted_until) * 1000)::bigint)
FROM muted m, to_regclass('@{quiet}') AS q (oid)
WHERE q.oid IS NOT NULL AND has_sequence_privilege(q.oid, 'UPDATE')

-- name: mute
-- By a cycle that looks for changes itself. Not where another deployment listens too: its graphs would wait.
WITH muted AS (
    UPDATE ONLY @{state} SET muted_until = clock_timestamp() + make_interval(secs => $1)
    WHERE wanted AND (SELECT count(*) FROM syncline.listener WHERE until > clock_timestamp()) < 2
    RETURNING muted_until
)
SELECT true, (
    SELECT setval(q.oid, (extract(epoch FROM m.muted_until) * 1000)::bigint)
    FROM to_regclass('@{quiet}') AS q (oid) WHERE q.oid IS NOT NULL AND has_sequence_privilege(q.oid, 'UPDATE')
)
FROM muted m

-- name: unmute
-- Where nothing is muted, the sequence is past too: they are written together.
WITH unmuted AS (
    UPDATE ONLY @{state} SET muted_until = '-infinity' WHERE muted_until > clock_timestamp() RETURNING one
)
SELECT setval(q.oid, 1) FROM unmuted, to_regclass('@{quiet}') AS q (oid)
WHERE q.oid IS NOT NULL AND has_sequence_privilege(q.oid, 'UPDATE')

-- name: muted
-- For how long; by a lingering cycle, where the listener's own mute is over.
SELECT extract(epoch FROM muted_until - clock_timestamp())::float8 AS seconds FROM @{state} WHERE muted_until > clock_timestamp()

-- name: visible_below
-- Changes of transactions below it are in the graph-db, parked or rejected.
SELECT coalesce((to_jsonb(s) -> 'visible' ->> 'below')::bigint, 0) FROM @{schema}.sync_state s

-- name: able
SELECT n.nspname AS schema FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relname = 'sync_notify' AND n.nspname = ANY ($1::text[])

-- name: want
UPDATE ONLY @{state} SET wanted = @{wanted} WHERE wanted IS DISTINCT FROM @{wanted} RETURNING '@{schema}' AS schema
