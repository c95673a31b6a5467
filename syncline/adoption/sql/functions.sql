SELECT n.nspname AS schema, p.proname AS name, p.prosrc AS body, p.prosecdef AS definer,
       pg_get_userbyid(p.proowner) AS owner,
       coalesce(p.proconfig, '{}') AS configuration
FROM pg_proc p
JOIN pg_namespace n ON n.oid = p.pronamespace
JOIN pg_type t ON t.oid = p.prorettype
WHERE n.nspname IN ($1, 'syncline') AND t.typname = 'trigger'
