-- The engine's state of a graph: lock holder, fence, cursors, progress.

-- name: holder
-- The session that holds the lock of the graph in schema $1: a worker's, or that of any role that may
-- connect.
SELECT l.pid, a.usename::text AS role, nullif(a.application_name, '') AS application_name, a.backend_start AS since,
       CASE a.state WHEN 'idle' THEN a.state_change END AS idle_since,
       coalesce(a.usename = current_user, false) AS own, clock_timestamp() AS now
FROM pg_catalog.pg_locks l
LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 AND l.pid <> pg_backend_pid()
  AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
  AND (l.classid::bigint << 32) | l.objid::bigint = hashtextextended('syncline:' || $1::text, 0)
ORDER BY a.backend_start NULLS LAST LIMIT 1

-- name: holder_end
-- End session $2, named $3, if it still holds the lock of the graph in schema $1: never another session, not
-- even one that has reused its process id.
SELECT pg_catalog.pg_terminate_backend(a.pid)
FROM pg_catalog.pg_locks l
JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 AND l.pid <> pg_backend_pid()
  AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
  AND (l.classid::bigint << 32) | l.objid::bigint = hashtextextended('syncline:' || $1::text, 0)
  AND a.pid = $2 AND a.application_name = $3 AND a.usename = current_user

-- name: ledger_read
-- A worker may be newer than the bookkeeping tables: columns on vectors, `visible`, and loads may be missing. Whether something
-- waits is read from the first entry in index order, never with EXISTS: that scans a whole table once the planner
-- expects the condition to be common, or where a million entries were deleted.
SELECT s.write_cluster, s.reader::text AS reader, s.position, j.state ->> 'vector_prefix' AS vector_prefix,
       (j.state ->> 'vector_generation')::int AS vector_generation,
       j.state ->> 'visible' AS visible,
       (j.state ->> 'load_below')::bigint AS load_below,
       j.state ? 'lanes_after' AS may_range, j.state ->> 'lanes_after' IS NOT NULL AS ranged,
       coalesce((j.state ->> 'load_due_at')::timestamptz <= now(), false) AS load_due,
       coalesce(pg_sequence_last_value(to_regclass('sync_wanted')), 0) AS wanted,
       s.behind_since, s.progress::text AS progress, s.map_hash,
       coalesce((SELECT jsonb_object_agg(c.table_name, jsonb_build_array(c.xid, c.key, to_jsonb(c) -> 'below')) FROM sync_cursor c), '{}')::text
           AS cursors,
       coalesce((SELECT jsonb_object_agg(c.table_name, c.hash) FROM sync_source c), '{}')::text AS sources,
       ARRAY(SELECT c.table_name FROM sync_comparison c WHERE to_jsonb(c) ->> 'withheld' IS NULL) AS comparisons,
       coalesce((
           SELECT jsonb_object_agg(c.table_name, jsonb_build_array(to_jsonb(c) -> 'withheld', to_jsonb(c) -> 'seen', c.reason))
           FROM sync_comparison c WHERE to_jsonb(c) ->> 'withheld' IS NOT NULL
       ), '{}')::text AS withheld,
       j.state ? 'noted_fence' AS notes, coalesce((j.state ->> 'noted_fence')::bigint = s.fence, false) AS noted,
       extract(epoch FROM now() - (j.state ->> 'checkpoint_at')::timestamptz)::float8 AS checkpoint_age,
       coalesce(pg_sequence_last_value(to_regclass('sync_recent_seq_seq')), 0) AS recent,
       ARRAY(SELECT e.collection FROM sync_vector_embedding e) AS collections,
       @{released} AS released,
       (SELECT row_id FROM sync_requeue ORDER BY table_name, row_id LIMIT 1) IS NOT NULL
           OR coalesce(@{next_retry} <= now(), false) AS requeued,
       (SELECT point_id FROM sync_outbox ORDER BY collection, point_id LIMIT 1) IS NOT NULL AS outbox,
       @{next_retry} IS NOT NULL AS retries,
       @{outbox_due} AS outbox_due,
       coalesce(pg_sequence_last_value(to_regclass('sync_look')), 0) AS marks,
       coalesce((SELECT jsonb_object_agg(w.table_name, jsonb_build_array(w.parked, w.dead)) FROM (
           @{not_landed}
       ) w), '{}')::text AS not_landed
FROM sync_state s CROSS JOIN LATERAL to_jsonb(s) AS j (state)

-- name: ledger_shadow
SELECT coalesce((SELECT xid FROM @{schema}.sync_cursor WHERE table_name = '@{deletes}'), 0)

-- name: ledger_take
-- The previous holder of the fence can no longer commit. Cursors of another write-db are deleted in the same
-- statement that stores the new one: an interrupted rescan must not leave some behind, which would look
-- valid. So are those of tables that are read again, with what is known of how their sources are captured.
-- Where there are checkpoints, the run notes what it reads, and the token that it has left.
WITH forgotten AS (
    DELETE FROM sync_cursor WHERE ($3 OR table_name = ANY ($10::text[])) AND current_schema() = $8::text
), captured AS (
    INSERT INTO sync_source (table_name, hash, captured)
    SELECT table_name, hash, captured FROM unnest($11::text[], $12::text[], $13::text[]) AS u (table_name, hash, captured)
    ON CONFLICT (table_name) DO UPDATE SET hash = excluded.hash, captured = excluded.captured
), owed AS (
    INSERT INTO sync_comparison (table_name, reason)
    SELECT table_name, reason FROM unnest($14::text[], $15::text[]) AS u (table_name, reason)
    ON CONFLICT (table_name) DO UPDATE SET reason = excluded.reason, part = 'rows', after = NULL
), taken AS (
    UPDATE sync_state
    SET fence = fence + 1, holder_run_id = $1, write_cluster = $2,
        position = CASE WHEN @{anew} THEN $9 ELSE coalesce($9, position) END@{notes}
    WHERE current_schema() = $8::text
    RETURNING fence
), noted AS (
    INSERT INTO sync_run (fence, run_id, workflow_id, attempt, provider, provider_version@{token_column})
    SELECT fence, $1, $4, $5, $6, $7@{token} FROM taken
), long_ago AS (
    DELETE FROM sync_run WHERE taken_at < now() - interval '90 days'
)
SELECT fence FROM taken

-- name: ledger_notes
-- Where checkpoints can be kept: this run notes what it reads.
, noted_fence = fence + 1

-- name: ledger_fence
SELECT fence FROM @{schema}.sync_state

-- name: ledger_commit
-- The cursor moves in the transaction of its batch, only for the holder of the fence, and only in the schema
-- that it is meant for.
WITH mine AS (
    UPDATE sync_state SET progress = $2::text::jsonb@{lanes} WHERE fence = $1 AND current_schema() = $6::text RETURNING 1
), moved AS (
    INSERT INTO sync_cursor (table_name, xid, key) SELECT $3, $4, $5::text[] FROM mine
    ON CONFLICT (table_name) DO UPDATE SET xid = excluded.xid, key = excluded.key
)
SELECT count(*) FROM mine

-- name: ledger_deletes
INSERT INTO sync_cursor AS c (table_name, xid) VALUES ($1, $2)
ON CONFLICT (table_name) DO UPDATE SET xid = excluded.xid, key = NULL WHERE c.xid < excluded.xid

-- name: ledger_progress
WITH mine AS (UPDATE sync_state SET progress = $2::text::jsonb@{lanes} WHERE fence = $1 AND current_schema() = $3::text RETURNING 1) SELECT count(*) FROM mine

-- name: ledger_finish
WITH mine AS (
    UPDATE sync_state
    SET progress = $2::text::jsonb, behind_since = CASE WHEN $3 THEN NULL ELSE coalesce(behind_since, now()) END@{lanes}
    WHERE fence = $1 AND current_schema() = $4::text
    RETURNING 1
)
SELECT count(*) FROM mine
