-- By what hangs on the schema: `pg_class` has no index by schema, and a database may have thousands of graphs.
WITH members AS MATERIALIZED (
    SELECT m.oid, m.relname, m.relnamespace
    FROM (SELECT DISTINCT relnamespace AS oid FROM pg_class WHERE oid = ANY ($1::oid[])) p
    JOIN pg_depend d ON d.refclassid = 'pg_namespace'::regclass AND d.refobjid = p.oid
        AND d.classid = 'pg_class'::regclass
    JOIN pg_class m ON m.oid = d.objid
)
SELECT n.nspname AS schema, m.relname AS name FROM members m JOIN pg_namespace n ON n.oid = m.relnamespace
UNION
SELECT n.nspname, c.relname
FROM members m
JOIN pg_index i ON i.indrelid = m.oid
JOIN pg_class c ON c.oid = i.indexrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
