-- Whether notifications arrive.

-- name: alive
SELECT coalesce((SELECT until > clock_timestamp() FROM syncline.listener WHERE name = $1), false)

-- name: notifies
-- Whether every captured table of the schema notifies.
SELECT to_regclass('syncline.listener') IS NOT NULL AND count(*) > 0 AND bool_and(EXISTS (
    SELECT FROM pg_trigger t
    WHERE t.tgrelid = c.oid AND t.tgname = 'capture_notify' AND t.tgenabled IN ('O', 'A')
))
FROM pg_namespace n
-- Starts from the schema's dependencies: `pg_class` has no index by schema, and every run asks this.
JOIN pg_depend d ON d.refclassid = 'pg_namespace'::regclass AND d.refobjid = n.oid AND d.classid = 'pg_class'::regclass
JOIN pg_class c ON c.oid = d.objid
JOIN pg_attribute a ON a.attrelid = c.oid
WHERE a.attname = 'sync_xid' AND NOT a.attisdropped AND c.relkind IN ('r', 'p') AND NOT c.relispartition
  AND c.relname <> 'sync_tombstone' AND n.nspname = $1

-- name: wanted
SELECT wanted FROM @{state}
