-- No transaction of this cluster can have stamped a row that is visible and not below xmax.
EXISTS (SELECT FROM @{source} WHERE sync_xid >= pg_snapshot_xmax(pg_current_snapshot()))
