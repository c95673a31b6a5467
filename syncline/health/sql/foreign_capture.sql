-- Captured tables whose triggers call a function of another owner: one that runs with that one's rights, or that its owner
-- could have the tables' writers run.
SELECT DISTINCT ON (n.nspname) n.nspname AS schema, pg_get_userbyid(p.proowner) AS acts_as, pg_get_userbyid(c.relowner) AS owner
FROM pg_namespace n
JOIN pg_proc p ON p.pronamespace IN (n.oid, (SELECT oid FROM pg_namespace WHERE nspname = 'syncline'))
JOIN pg_trigger t ON t.tgfoid = p.oid AND t.tgname LIKE 'capture\_%' AND NOT t.tgisinternal
JOIN pg_class c ON c.oid = t.tgrelid AND c.relnamespace = n.oid
WHERE n.nspname = ANY ($1::text[]) AND p.proowner <> c.relowner
ORDER BY n.nspname, p.proowner
