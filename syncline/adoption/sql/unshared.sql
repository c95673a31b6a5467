-- What of schema syncline nobody needs once $1 is captured no more, as far as it is ours to drop.
SELECT 'capture_version' AS name
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname = 'syncline' AND p.proname = 'capture_version' AND pg_has_role(p.proowner, 'USAGE')
  AND NOT EXISTS (
      SELECT FROM pg_trigger t
      JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace m ON m.oid = c.relnamespace
      WHERE t.tgfoid = p.oid AND t.tgparentid = 0 AND m.nspname <> $1
  )
UNION ALL
SELECT 'listener'
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'syncline' AND c.relname = 'listener' AND pg_has_role(c.relowner, 'USAGE')
  AND NOT EXISTS (
      SELECT FROM pg_proc p JOIN pg_namespace m ON m.oid = p.pronamespace
      WHERE p.proname = 'sync_notify' AND m.nspname <> $1
  )
UNION ALL
SELECT 'syncline'
FROM pg_namespace n
WHERE n.nspname = 'syncline' AND pg_has_role(n.nspowner, 'USAGE')
  AND NOT EXISTS (
      SELECT FROM pg_depend d
      WHERE d.refclassid = 'pg_namespace'::regclass AND d.refobjid = n.oid
        AND NOT EXISTS (
            SELECT FROM pg_proc p WHERE d.classid = 'pg_proc'::regclass AND p.oid = d.objid
            AND p.proname = 'capture_version'
        )
        AND NOT EXISTS (
            SELECT FROM pg_class c WHERE d.classid = 'pg_class'::regclass AND c.oid = d.objid
            AND c.relname = 'listener'
        )
  )
