-- The first row behind the cursor, in the index's own order: whether there is any row between cursor and horizon, the
-- planner would look up in the table, as long as nobody has counted how many there are.
coalesce((
    SELECT sync_xid FROM @{source} WHERE @{after_cursor} ORDER BY sync_xid, @{key_order} LIMIT 1
) < pg_snapshot_xmin(pg_current_snapshot()), false)
