-- Changes that were not notified.

-- name: stamped
-- The captured tables of these schemas: whatever their map, they have the stamp column.
SELECT n.nspname AS schema, c.relname AS name
FROM pg_attribute a
JOIN pg_class c ON c.oid = a.attrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE a.attname = 'sync_xid' AND NOT a.attisdropped AND c.relkind IN ('r', 'p') AND NOT c.relispartition
  AND n.nspname = ANY ($1::text[])
ORDER BY n.nspname, c.relname

-- name: probe
-- The first row in index order. With EXISTS the planner would scan the table page by page.
(SELECT sync_xid FROM @{table} WHERE sync_xid >= $1::text::xid8 ORDER BY sync_xid DESC LIMIT 1) IS NOT NULL
