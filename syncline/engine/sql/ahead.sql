-- Null, or 1 when committed rows wait for an older transaction to end, or 2 when rows have stamps that no transaction of
-- this cluster can have given: nothing that is visible is above xmax. Asked of the last row in the index's own order, and
-- only of those that can be it: whether there is one such row, the planner would look up in the table, page by page.
(
    SELECT CASE WHEN sync_xid >= pg_snapshot_xmax(pg_current_snapshot()) THEN 2 ELSE 1 END
    FROM @{source} WHERE sync_xid >= pg_snapshot_xmin(pg_current_snapshot())
    ORDER BY sync_xid DESC LIMIT 1
)
