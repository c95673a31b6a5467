-- The schema's relations that have columns, and the partitions that hold their rows, wherever those are.
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
       c.relkind = 'r' AS stores,
       ARRAY(
           SELECT a.relid::oid FROM pg_partition_ancestors(c.oid) AS a
           WHERE c.relkind <> 'p' AND a.relid <> c.oid
       ) AS roots
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm')
  AND (n.nspname = $1 OR c.relispartition AND EXISTS (
      SELECT FROM pg_partition_ancestors(c.oid) AS a
      JOIN pg_class p ON p.oid = a.relid JOIN pg_namespace m ON m.oid = p.relnamespace
      WHERE m.nspname = $1
  ))
ORDER BY n.nspname, c.relname
