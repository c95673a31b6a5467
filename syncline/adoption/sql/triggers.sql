SELECT t.tgrelid AS relation, t.tgname AS name, t.tgtype::int AS kind, t.tgenabled IN ('O', 'A') AS enabled,
       t.tgenabled = 'A' AS always,
       t.tgqual IS NOT NULL OR cardinality(t.tgattr::int2[]) > 0 AS conditional,
       t.tgoldtable AS old_table, t.tgparentid = 0 AS of_its_own, n.nspname AS function_schema, p.proname AS function_name
FROM pg_trigger t
JOIN pg_proc p ON p.oid = t.tgfoid
JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE t.tgrelid = ANY ($1::oid[]) AND NOT t.tgisinternal
ORDER BY t.tgrelid, t.tgname
