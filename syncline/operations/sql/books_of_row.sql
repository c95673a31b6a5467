SELECT p.waits_for_table, p.waits_for_key, p.since, p.released, coalesce((p.image ->> 'sync_xid')::bigint, 0) AS version,
       q.reason, q.queued_at
FROM (SELECT) AS one
LEFT JOIN sync_parked_row p ON p.table_name = $1 AND p.row_id = $2
LEFT JOIN sync_requeue q ON q.table_name = $1 AND q.row_id = $2
