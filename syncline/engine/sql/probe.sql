EXISTS (
    SELECT FROM @{source} WHERE @{after_cursor} AND sync_xid < pg_snapshot_xmin(pg_current_snapshot())
)
