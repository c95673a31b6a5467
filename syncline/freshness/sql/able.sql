SELECT n.nspname AS schema FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relname = 'sync_notify' AND n.nspname = ANY ($1::text[])
