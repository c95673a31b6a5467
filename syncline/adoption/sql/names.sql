SELECT n.nspname AS schema, c.relname AS name
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.oid IN (SELECT relnamespace FROM pg_class WHERE oid = ANY ($1::oid[]))
