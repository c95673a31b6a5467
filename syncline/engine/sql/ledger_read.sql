-- A worker may be newer than the books: vector_prefix need not be there yet.
SELECT s.write_cluster, s.reader::text AS reader, s.position, to_jsonb(s) ->> 'vector_prefix' AS vector_prefix,
       s.behind_since, s.progress::text AS progress,
       coalesce((SELECT jsonb_object_agg(c.table_name, jsonb_build_array(c.xid, c.key)) FROM sync_cursor c), '{}')::text
           AS cursors,
       coalesce((SELECT jsonb_object_agg(c.table_name, c.hash) FROM sync_source c), '{}')::text AS sources,
       ARRAY(SELECT c.table_name FROM sync_comparison c) AS comparisons,
       ARRAY(SELECT DISTINCT r.table_name FROM sync_parked_row r WHERE r.released) AS released,
       EXISTS (SELECT FROM sync_requeue)
           OR EXISTS (SELECT FROM sync_dead_letter WHERE next_retry_at <= now()) AS requeued,
       EXISTS (SELECT FROM sync_outbox) AS outbox,
       EXISTS (SELECT FROM sync_dead_letter WHERE next_retry_at IS NOT NULL) AS retries,
       @{outbox_due} AS outbox_due
FROM sync_state s
