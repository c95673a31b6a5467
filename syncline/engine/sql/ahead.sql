-- 0, or 1 when committed rows wait for an older transaction to end, or 2 when rows have stamps that no transaction of
-- this cluster can have given: nothing that is visible is above xmax. One probe as long as neither is so.
CASE WHEN NOT EXISTS (SELECT FROM @{source} WHERE sync_xid >= pg_snapshot_xmin(pg_current_snapshot())) THEN 0
     WHEN EXISTS (SELECT FROM @{source} WHERE sync_xid >= pg_snapshot_xmax(pg_current_snapshot())) THEN 2
     ELSE 1 END
