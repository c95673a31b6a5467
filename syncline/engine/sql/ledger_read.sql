-- A worker may be newer than the books: vector_prefix need not be there yet.
-- Whether something waits is asked of the first entry in an index's own order, never with EXISTS: that reads a table end
-- to end as soon as the planner takes the condition for a common one, or where a million entries were and are no more.
SELECT s.write_cluster, s.reader::text AS reader, s.position, to_jsonb(s) ->> 'vector_prefix' AS vector_prefix,
       s.behind_since, s.progress::text AS progress,
       coalesce((SELECT jsonb_object_agg(c.table_name, jsonb_build_array(c.xid, c.key)) FROM sync_cursor c), '{}')::text
           AS cursors,
       coalesce((SELECT jsonb_object_agg(c.table_name, c.hash) FROM sync_source c), '{}')::text AS sources,
       ARRAY(SELECT c.table_name FROM sync_comparison c) AS comparisons,
       @{released} AS released,
       (SELECT row_id FROM sync_requeue ORDER BY table_name, row_id LIMIT 1) IS NOT NULL
           OR coalesce(@{next_retry} <= now(), false) AS requeued,
       (SELECT point_id FROM sync_outbox ORDER BY collection, point_id LIMIT 1) IS NOT NULL AS outbox,
       @{next_retry} IS NOT NULL AS retries,
       @{outbox_due} AS outbox_due,
       coalesce(pg_sequence_last_value(to_regclass('sync_look')), 0) AS marks
FROM sync_state s
