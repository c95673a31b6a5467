-- The owners of the schema, of its relations $2 and functions, and of what all schemas share, and what they may do.
WITH owner AS (
    SELECT nspowner AS oid FROM pg_namespace WHERE nspname IN ($1, 'syncline')
    UNION
    SELECT relowner FROM pg_class WHERE oid = ANY ($2::oid[])
    UNION
    SELECT p.proowner FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname IN ($1, 'syncline')
    UNION
    SELECT c.relowner FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'syncline' AND c.relname = 'listener'
), place AS (
    SELECT n.oid, n.nspname, CASE WHEN n.nspowner = 'pg_database_owner'::regrole THEN d.datdba ELSE n.nspowner END AS owner
    FROM pg_namespace n, pg_database d
    WHERE d.datname = current_database() AND n.nspname IN ($1, 'syncline')
)
SELECT r.rolname AS name, r.rolsuper AS superuser, r.rolname = current_user AS self,
       r.oid = (SELECT datdba FROM pg_database WHERE datname = current_database()) OR r.rolname = 'pg_database_owner'
           AS database_owner,
       pg_has_role(r.oid, CASE WHEN current_setting('server_version_num')::int < 160000 THEN 'MEMBER' ELSE 'SET' END)
           AS may_become,
       coalesce(bool_or(pg_has_role(p.owner, r.oid, 'MEMBER')), true) AS held_by_schema_owner,
       coalesce(bool_or(has_schema_privilege(r.oid, p.oid, 'CREATE')), true) AS may_create,
       coalesce(bool_or(p.owner = r.oid), false) AS owns_schema
FROM owner o JOIN pg_roles r ON r.oid = o.oid LEFT JOIN place p ON p.nspname = $1
GROUP BY r.oid, r.rolname, r.rolsuper
