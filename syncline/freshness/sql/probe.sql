-- The first in the index's own order: whether there is one, the planner would look up in the table, page by page.
(SELECT sync_xid FROM @{table} WHERE sync_xid >= $1::text::xid8 ORDER BY sync_xid DESC LIMIT 1) IS NOT NULL
