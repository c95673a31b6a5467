-- What those who wait ask of a graph-db and, when their time is over, of a write-db.

-- name: clean
-- Of the transactions $1 of servers $2, while which $3 was the oldest open one, the places of those that are visible, or about
-- which there is more to say than that they are not yet: all at once, however many wait. While a load goes on, later ones than
-- `below` are visible.
SELECT w.place, c.clean AND s.visible -> 'sources' ? w.source AS visible
FROM unnest($1::bigint[], $2::text[], $3::bigint[]) WITH ORDINALITY AS w (xid, source, oldest, place)
CROSS JOIN @{schema}.sync_state s
CROSS JOIN LATERAL (SELECT s.visible_clean @@> int8range(least(w.oldest, w.xid), w.xid, '[]') AS clean) AS c
WHERE c.clean OR w.xid < (s.visible ->> 'below')::bigint OR NOT s.visible -> 'sources' ? w.source

-- name: said
SELECT visible, vectors, state, reason FROM syncline.visible($1, $2)

-- name: want
-- The next cycle then looks how far it is, even if nothing else is to be done.
SELECT nextval('@{schema}.sync_wanted')

-- name: advanced
-- When it was last found how far the graph is, in seconds of the graph-db; and since when cycles have not finished.
SELECT extract(epoch FROM (visible ->> 'at')::timestamptz)::float8 AS at, extract(epoch FROM clock_timestamp())::float8 AS now,
       extract(epoch FROM clock_timestamp() - behind_since)::float8 AS behind
FROM @{schema}.sync_state

-- name: held_back
-- What the write-db says of transaction $1, and which open transaction is the oldest that writes.
SELECT CASE WHEN $1::text::xid8 < pg_snapshot_xmax(pg_current_snapshot()) THEN pg_xact_status($1::text::xid8) END AS status,
       @{horizon} <= $1::text::xid8 AS held,
       w.age, w.database, w.application_name
FROM (SELECT) AS one LEFT JOIN (@{oldest_writer}) AS w ON true
