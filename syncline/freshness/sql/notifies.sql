-- Whether every captured table of the schema tells of changes.
SELECT to_regclass('syncline.listener') IS NOT NULL AND count(*) > 0 AND bool_and(EXISTS (
    SELECT FROM pg_trigger t
    WHERE t.tgrelid = c.oid AND t.tgname = 'capture_notify' AND t.tgenabled IN ('O', 'A')
))
FROM pg_attribute a
JOIN pg_class c ON c.oid = a.attrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE a.attname = 'sync_xid' AND NOT a.attisdropped AND c.relkind IN ('r', 'p') AND NOT c.relispartition
  AND c.relname <> 'sync_tombstone' AND n.nspname = $1
