-- Whether the oldest deleted key was kept for long enough: 1, or 2 if this role must not delete it, else 0. The first in
-- the order of transactions stands for all, so that this is one look into an index, however many wait.
coalesce((
    SELECT CASE WHEN sync_xid >= pg_snapshot_xmin(pg_current_snapshot()) OR @{kept} OR pg_is_in_recovery() THEN 0
                WHEN has_table_privilege(d.tableoid, 'DELETE') THEN 1
                ELSE 2 END
    FROM @{tombstones} d ORDER BY sync_xid, seq LIMIT 1
), 0)
