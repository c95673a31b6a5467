-- The schema's relations that have columns, and the partitions that hold their rows, wherever those are. By what hangs on the
-- schema: `pg_class` has no index by schema, and a database may have thousands of graphs.
WITH members AS MATERIALIZED (
    SELECT d.objid AS oid
    FROM pg_namespace n
    JOIN pg_depend d ON d.refclassid = 'pg_namespace'::regclass AND d.refobjid = n.oid
        AND d.classid = 'pg_class'::regclass
    WHERE n.nspname = $1
), found AS MATERIALIZED (
    SELECT oid FROM members
    UNION
    SELECT t.relid
    FROM members m
    JOIN pg_class p ON p.oid = m.oid AND p.relkind = 'p'
    CROSS JOIN LATERAL pg_partition_tree(p.oid) t
)
SELECT c.oid, n.nspname AS schema, c.relname AS name,
       CASE
           WHEN c.relispartition THEN 'partition'
           WHEN c.relkind = 'p' THEN 'partitioned table'
           WHEN c.relkind = 'f' THEN 'foreign table'
           WHEN c.relkind = 'v' THEN 'view'
           WHEN c.relkind = 'm' THEN 'materialized view'
           WHEN EXISTS (SELECT FROM pg_inherits WHERE c.oid IN (inhrelid, inhparent)) THEN 'inheriting table'
           ELSE 'table'
       END AS kind,
       c.relkind = 'r' AS stores, c.relrowsecurity AND row_security_active(c.oid) AS filtered, current_user::text AS role,
       ARRAY(
           SELECT a.relid::oid FROM pg_partition_ancestors(c.oid) AS a
           WHERE c.relkind <> 'p' AND a.relid <> c.oid
       ) AS roots
FROM found f JOIN pg_class c ON c.oid = f.oid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm')
ORDER BY n.nspname, c.relname
