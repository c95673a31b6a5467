-- What separates tenants that share a write-db.

-- name: role
SELECT rolname AS name, rolsuper AS superuser, rolcreaterole AS createrole, rolbypassrls AS bypassrls
FROM pg_roles WHERE rolname = current_user

-- name: foreign_capture
-- Captured tables whose triggers call a function of another owner: one that runs with that one's rights, or that its owner
-- could have the tables' writers run.
SELECT DISTINCT ON (n.nspname) n.nspname AS schema, pg_get_userbyid(p.proowner) AS acts_as, pg_get_userbyid(c.relowner) AS owner
FROM pg_namespace n
JOIN pg_proc p ON p.pronamespace IN (n.oid, (SELECT oid FROM pg_namespace WHERE nspname = 'syncline'))
JOIN pg_trigger t ON t.tgfoid = p.oid AND t.tgname LIKE 'capture\_%' AND NOT t.tgisinternal
JOIN pg_class c ON c.oid = t.tgrelid AND c.relnamespace = n.oid
WHERE n.nspname = ANY ($1::text[]) AND p.proowner <> c.relowner
ORDER BY n.nspname, p.proowner

-- name: creators
-- Who may create in a schema and is neither a superuser nor this role, nor the owner of the schema or of the bookkeeping.
SELECT n.nspname AS schema, CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee)::text END AS role
FROM pg_namespace n
CROSS JOIN LATERAL aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a
LEFT JOIN pg_roles r ON r.oid = a.grantee
WHERE n.nspname = ANY ($1::text[]) AND a.privilege_type = 'CREATE'
  AND (a.grantee = 0 OR NOT r.rolsuper AND r.rolname <> current_user AND a.grantee <> n.nspowner
      AND NOT EXISTS (
          SELECT FROM pg_class c WHERE c.relnamespace = n.oid AND c.relname = 'sync_state' AND c.relowner = a.grantee
      ))
ORDER BY n.nspname, 2

-- name: graph_locks
SELECT s.name AS schema, l.pid, a.usename::text AS role, nullif(a.application_name, '') AS application_name,
       coalesce(a.usename = current_user, false) AS own, clock_timestamp() AS now,
       CASE a.state WHEN 'idle' THEN extract(epoch FROM clock_timestamp() - a.state_change)::float8 END AS idle_seconds
FROM unnest($1::text[]) AS s (name)
JOIN pg_locks l ON (l.classid::bigint << 32) | l.objid::bigint = hashtextextended('syncline:' || s.name, 0)
LEFT JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
ORDER BY s.name, l.pid

-- name: earlier_capture
-- Schemas with tables that have one stamping trigger for INSERT and UPDATE, as earlier releases made it.
SELECT n.nspname AS schema
FROM pg_namespace n
WHERE n.nspname = ANY ($1::text[]) AND EXISTS (
    SELECT FROM pg_depend d JOIN pg_trigger t ON t.tgrelid = d.objid
    WHERE d.refclassid = 'pg_namespace'::regclass AND d.refobjid = n.oid AND d.classid = 'pg_class'::regclass
      AND t.tgname = 'capture_version' AND t.tgtype & 16 <> 0
)
ORDER BY n.nspname
