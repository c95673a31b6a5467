-- The lease by which writers know that somebody listens, and what was still to be heard when it was last renewed.
WITH before AS MATERIALIZED (SELECT until, heard_below FROM syncline.listener WHERE name = $1)
INSERT INTO syncline.listener AS l (name, until, heard_below)
VALUES ($1, clock_timestamp() + make_interval(secs => $2), $3::text::xid8)
ON CONFLICT (name) DO UPDATE SET until = excluded.until, heard_below = excluded.heard_below
RETURNING (SELECT until < clock_timestamp() FROM before) AS lapsed
