-- Ranges of loads, which several connections read side by side.

-- name: lane_lock
-- Lanes have it together; whoever else applies a batch while there are ranges has it alone. Postgres gives it in the order in
-- which it is asked for. Who has waited for so long looks who has it. After that there is no limit again, as everywhere in the
-- engine's sessions; TO DEFAULT would be the limit of the role, the database or the host.
SET LOCAL lock_timeout = '@{milliseconds}ms';
SELECT pg_advisory_xact_lock@{shared}(hashtextextended('syncline load:@{schema}', 0));
SET LOCAL lock_timeout = 0

-- name: lane_holders
-- Who has that lock of the graph in schema $1. `ours`: a session of this role in a lane's batch, which names it $2, or that of
-- the graph's cycle. `silent` says where a lane is that waits for its client in the middle of a statement: the same at two
-- looks if it got nothing in between. A prepared transaction has no session.
WITH held AS (
    SELECT l.pid, (l.classid::bigint << 32) | l.objid::bigint AS key
    FROM pg_catalog.pg_locks l
    WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 AND l.pid IS DISTINCT FROM pg_backend_pid()
      AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
)
SELECT DISTINCT ON (h.pid) h.pid, a.usename::text AS role, nullif(a.application_name, '') AS application_name,
       current_database()::text AS database,
       coalesce(a.usename = current_user AND (
           a.application_name = $2::text
           OR EXISTS (SELECT FROM held g WHERE g.pid = h.pid AND g.key = hashtextextended('syncline:' || $1::text, 0))
       ), false) AS ours,
       CASE WHEN a.usename = current_user AND a.application_name = $2::text AND a.state = 'active'
                 AND a.wait_event IN ('ClientRead', 'ClientWrite')
            THEN format('%s %s %s', a.backend_start, a.query_start, c.bytes_processed) END AS silent
FROM held h
LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = h.pid
LEFT JOIN pg_catalog.pg_stat_progress_copy c ON c.pid = h.pid
WHERE h.key = hashtextextended('syncline load:' || $1::text, 0)
ORDER BY h.pid

-- name: lane_end
-- End session $3, if it still is where it was seen at, $4: never another session, not even one that has reused its process id.
SELECT pg_catalog.pg_terminate_backend(h.pid) FROM (
    @{holders}
) AS h WHERE h.pid = $3 AND h.silent = $4

-- name: lane_session
-- Fresh changes wait for a lane: one whose worker has stopped between two statements, or is no more, is ended by the server;
-- one that has stopped within a statement, by who waits for it. By its name it is known to be a lane.
SET LOCAL application_name = @{session};
SET LOCAL idle_in_transaction_session_timeout = '60s';
SET LOCAL tcp_keepalives_idle = 20; SET LOCAL tcp_keepalives_interval = 5; SET LOCAL tcp_keepalives_count = 4

-- name: lane_counts
-- What is counted of a lane's rows is kept apart until its end (sync_keep_counts).
SET LOCAL syncline.lane = 'on';
CREATE TEMP TABLE IF NOT EXISTS sync_counted (
    counted text NOT NULL, name text NOT NULL, refused boolean NOT NULL, entries bigint NOT NULL
) ON COMMIT DELETE ROWS

-- name: lane_counted
INSERT INTO sync_count AS c (counted, name, refused, entries)
SELECT counted, name, refused, sum(entries) FROM pg_temp.sync_counted GROUP BY counted, name, refused HAVING sum(entries) <> 0
ORDER BY counted, name, refused
ON CONFLICT (counted, name, refused) DO UPDATE SET entries = c.entries + excluded.entries

-- name: lane_fence
-- Who takes the graph now waits for this transaction, or this one for them.
SELECT fence FROM sync_state WHERE current_schema() = $1::text FOR SHARE

-- name: lane_holder
-- Apart: the run is as new as the fence.
SELECT run_id = $2 AND attempt = $3 FROM sync_run WHERE fence = $1

-- name: lanes_wait
SELECT coalesce(lanes_after > clock_timestamp(), false) FROM sync_state

-- name: lanes_held
-- Less than a second passes from one batch of fresh changes to the next: no lane comes in between.
, lanes_after = CASE WHEN lanes_after IS NOT NULL THEN clock_timestamp() + interval '2 s' END

-- name: lanes_let
, lanes_after = CASE WHEN lanes_after IS NOT NULL THEN '-infinity'::timestamptz END

-- name: lanes_stop
UPDATE sync_state SET lanes_after = clock_timestamp() + interval '@{seconds} s' WHERE lanes_after IS NOT NULL

-- name: lanes_begin
UPDATE sync_state SET lanes_after = '-infinity'

-- name: lanes_end
UPDATE sync_state SET lanes_after = NULL WHERE NOT EXISTS (SELECT FROM sync_range)

-- name: ranges_of
-- Of each table whose load is read in ranges: below which transaction its rows are, how many ranges were cut and are done, and
-- how many lanes have committed lately. No row of the load: the table is read otherwise since.
SELECT r.table_name AS name, c.below, count(r.upto_xid) AS cut, count(*) FILTER (WHERE r.done) AS done,
       count(DISTINCT r.lane) FILTER (WHERE r.changed_at > clock_timestamp() - interval '15 s') AS lanes
FROM sync_range r LEFT JOIN sync_cursor c ON c.table_name = $1 || r.table_name AND c.below IS NOT NULL
GROUP BY r.table_name, c.below

-- name: loads_open
SELECT substr(table_name, length($1::text) + 1) AS name FROM sync_cursor WHERE below IS NOT NULL

-- name: ranges_begin
-- All of a load is one range, which was not cut yet.
INSERT INTO sync_range (table_name, number, xid) SELECT name, 1, 0 FROM unnest($1::text[]) AS u (name)

-- name: ranges_forget
-- Those of tables $1; and those of loads that are no more, since the table is read otherwise.
DELETE FROM sync_range r
WHERE r.table_name = ANY ($1::text[])
   OR NOT EXISTS (SELECT FROM sync_cursor c WHERE c.table_name = $2 || r.table_name AND c.below IS NOT NULL)
RETURNING r.progress::text AS progress

-- name: range_rest
-- What was not cut of load $2, which is below transaction $3. Whoever cuts waits for each other.
SELECT r.number, r.xid, r.key FROM sync_range r
WHERE r.table_name = $1 AND r.upto_xid IS NULL AND NOT r.done
  AND EXISTS (SELECT FROM sync_cursor c WHERE c.table_name = $2 AND c.below = $3)
FOR UPDATE OF r

-- name: range_cut
-- What was not cut ends there. If that is before the end of the load, the rest follows.
WITH cut AS (
    UPDATE sync_range SET upto_xid = $3, upto_key = $4::text[], lane = $6, changed_at = clock_timestamp()
    WHERE table_name = $1 AND number = $2
)
INSERT INTO sync_range (table_name, number, xid, key) SELECT $1, $2 + 1, $3, $4::text[] WHERE $5

-- name: range_left
-- The first range that is in nobody's hands.
SELECT r.number, r.xid, r.key, r.upto_xid, r.upto_key FROM sync_range r
WHERE r.table_name = $1 AND NOT r.done AND r.upto_xid IS NOT NULL
  AND EXISTS (SELECT FROM sync_cursor c WHERE c.table_name = $2 AND c.below = $3)
ORDER BY r.number LIMIT 1 FOR UPDATE OF r SKIP LOCKED

-- name: ranges_undone
SELECT count(*) FROM sync_range WHERE table_name = $1 AND NOT done

-- name: range_take
-- Range $2, if it is as it was left at ($3, $4), and what the first load has put off; and what fresh changes have reached.
SELECT r.progress::text AS progress, ARRAY(SELECT o.name FROM sync_owed o WHERE o.kind = '@{counts}' AND NOT o.there) AS counts,
       (SELECT max(c.xid) FROM sync_cursor c) AS reached,
       EXISTS (SELECT FROM sync_owed o WHERE o.kind <> '@{counts}') AS indexes
FROM sync_range r
WHERE r.table_name = $1 AND r.number = $2 AND NOT r.done AND r.xid = $3 AND r.key IS NOT DISTINCT FROM $4::text[]
  AND EXISTS (SELECT FROM sync_cursor c WHERE c.table_name = $5 AND c.below = $6)
FOR UPDATE OF r SKIP LOCKED

-- name: range_moves
UPDATE sync_range
SET xid = $3, key = $4::text[], done = $5, progress = $6::text::jsonb, captured = captured + $7, batches = batches + 1,
    lane = $8, changed_at = clock_timestamp()
WHERE table_name = $1 AND number = $2

-- name: ranges_progress
-- What lanes have committed since, once; of a range that is in somebody's hands, later.
WITH free AS (
    SELECT table_name, number, progress FROM sync_range
    WHERE table_name = $1 AND progress <> '{}' ORDER BY number FOR UPDATE SKIP LOCKED
), taken AS (
    UPDATE sync_range r SET progress = '{}' FROM free f WHERE r.table_name = f.table_name AND r.number = f.number
)
SELECT progress::text FROM free

-- name: ranges_reached
-- Where the first row is that may not be here yet.
SELECT xid, key FROM sync_range WHERE table_name = $1 AND NOT done ORDER BY number LIMIT 1

-- name: ranges_awaited
-- The rows of a table that rows of the same table wait for, of which some may be there: both were written at the same time.
INSERT INTO @{stage} (sync_xid, sync_present, @{columns})
SELECT 0, true, @{parts}
FROM (
    SELECT waits_for_key FROM sync_parked_row WHERE table_name = '@{table}' AND waits_for_table = '@{table}' AND NOT released
    UNION SELECT waits_for_key FROM sync_parked_reference WHERE table_name = '@{table}' AND waits_for_table = '@{table}'
) AS a

-- name: ranges_missing
DELETE FROM @{stage} s WHERE NOT EXISTS (SELECT FROM @{target} t WHERE @{here})
