SELECT pg_get_userbyid(c.relowner) AS owner, c.relkind = 'r' AS stores
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'syncline' AND c.relname = 'listener'
