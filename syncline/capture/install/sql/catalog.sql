-- Read the write-db's catalog.

-- name: relations
-- The schema's relations with columns, and the partitions with their rows, in any schema. Starts from the
-- schema's dependencies: `pg_class` has no index by schema, and a database may have thousands of graphs.
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
SELECT c.oid, n.nspname AS schema, c.relname AS name, pg_get_userbyid(c.relowner) AS owner,
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
       ) AS roots,
       -- As `captured` of the engine computes it.
       (
           SELECT hashtextextended(string_agg(concat_ws(':', n.attnum, n.attname, n.atttypid, n.atttypmod), ',' ORDER BY n.attnum), 0)::text
           FROM pg_attribute n WHERE n.attrelid = c.oid AND n.attnum > 0
       ) AS shape
FROM found f JOIN pg_class c ON c.oid = f.oid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm')
ORDER BY n.nspname, c.relname

-- name: columns
-- Only the types of these columns: a database has a type per table. A type of the schema itself is spelled
-- without the schema.
WITH RECURSIVE found AS MATERIALIZED (
    SELECT * FROM pg_attribute WHERE attrelid = ANY ($1::oid[]) AND attnum > 0 AND NOT attisdropped
), bases AS (
    SELECT atttypid AS type, atttypid AS base FROM found GROUP BY atttypid
    UNION ALL
    SELECT b.type, d.typbasetype FROM bases b JOIN pg_type d ON d.oid = b.base WHERE d.typtype = 'd'
)
SELECT a.attrelid AS relation, a.attname AS name, CASE WHEN n.nspname = $2 THEN substr(format_type(t.oid, NULL), length(quote_ident($2)) + 2)
           ELSE format_type(t.oid, NULL) END AS type, t.typtype = 'e' AS enum,
       a.atttypid <> t.oid AS domain,
       CASE WHEN n.nspname = $2 THEN substr(format_type(t.oid, k.modifier), length(quote_ident($2)) + 2)
           ELSE format_type(t.oid, k.modifier) END AS full_type,
       a.attnum::int AS number, a.attgenerated <> '' AS generated,
       a.attnotnull AS not_null, a.attstorage = 'e' AS uncompressed,
       pg_get_expr(d.adbin, d.adrelid) AS default,
       a.atthasdef OR a.attidentity <> '' OR a.attgenerated <> '' AS filled
FROM found a
JOIN bases b ON b.type = a.atttypid
JOIN pg_type t ON t.oid = b.base AND t.typtype <> 'd'
JOIN pg_namespace n ON n.oid = t.typnamespace
CROSS JOIN LATERAL (SELECT CASE WHEN t.oid = a.atttypid THEN a.atttypmod END AS modifier) k
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
ORDER BY a.attrelid, a.attnum

-- name: triggers
SELECT t.tgrelid AS relation, t.tgname AS name, t.tgtype::int AS kind, t.tgenabled IN ('O', 'A') AS enabled,
       t.tgenabled = 'A' AS always,
       t.tgqual IS NOT NULL OR cardinality(t.tgattr::int2[]) > 0 AS conditional,
       CASE WHEN t.tgqual IS NOT NULL AND cardinality(t.tgattr::int2[]) = 0 THEN
           replace(substring(pg_get_triggerdef(t.oid) FROM 'WHEN \((.*)\) EXECUTE FUNCTION'), 'pg_catalog.', '')
       END AS condition,
       t.tgoldtable AS old_table, t.tgparentid = 0 AS of_its_own, n.nspname AS function_schema, p.proname AS function_name
FROM pg_trigger t
JOIN pg_proc p ON p.oid = t.tgfoid
JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE t.tgrelid = ANY ($1::oid[]) AND NOT t.tgisinternal
ORDER BY t.tgrelid, t.tgname

-- name: indexes
-- `plain`: usable for the engine's keyset order and ON CONFLICT. Each index is looked up separately: a join
-- of all would read the whole catalog of a database with thousands of graphs.
WITH found AS MATERIALIZED (SELECT * FROM pg_index WHERE indrelid = ANY ($1::oid[]))
SELECT i.indrelid AS relation, c.relname AS name, i.indisvalid AND i.indisready AS valid,
       i.indisunique AS unique,
       a.amname = 'btree' AND i.indpred IS NULL AND i.indimmediate AND k.plain AS plain,
       k.columns, k.collations
FROM found i
JOIN pg_class c ON c.oid = i.indexrelid
JOIN pg_am a ON a.oid = c.relam
CROSS JOIN LATERAL (
    SELECT bool_and(i.indoption[p.part] = 0 AND o.opcdefault) AS plain,
           array_agg(coalesce(t.attname, '') ORDER BY p.part) AS columns,
           array_agg(l.collname ORDER BY p.part) AS collations
    FROM generate_series(0, i.indnkeyatts - 1) AS p (part)
    JOIN pg_opclass o ON o.oid = i.indclass[p.part]
    LEFT JOIN pg_collation l ON l.oid = i.indcollation[p.part]
    LEFT JOIN pg_attribute t ON t.attrelid = i.indrelid AND t.attnum = i.indkey[p.part] AND t.attnum > 0
) k
ORDER BY i.indrelid, c.relname

-- name: functions
SELECT n.nspname AS schema, p.proname AS name, p.prosrc AS body, p.prosecdef AS definer,
       pg_get_userbyid(p.proowner) AS owner,
       coalesce(p.proconfig, '{}') AS configuration
FROM pg_proc p
JOIN pg_namespace n ON n.oid = p.pronamespace
JOIN pg_type t ON t.oid = p.prorettype
WHERE n.nspname IN ($1, 'syncline') AND t.typname = 'trigger'

-- name: names
-- Starts from the schema's dependencies: `pg_class` has no index by schema, and a database may have thousands
-- of graphs.
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

-- name: listener_state
SELECT pg_get_userbyid(c.relowner) AS owner, c.relkind = 'r' AS stores
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'syncline' AND c.relname = 'listener'

-- name: token_state
SELECT p.prosrc AS body, p.prosecdef AS definer, pg_get_userbyid(p.proowner) AS owner,
       coalesce(p.proconfig, '{}') AS configuration
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname = 'syncline' AND p.proname = 'token' AND p.pronargs = 0

-- name: schema_owners
SELECT nspname AS schema, pg_get_userbyid(nspowner) AS owner FROM pg_namespace WHERE nspname IN ($1, 'syncline')

-- name: roles
-- The owners of the schema, of its relations $2 and functions, and of schema `syncline`, and their
-- privileges.
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

-- name: types
-- Spelled like column types: a type of schema $2 itself without the schema.
SELECT a.asked,
       CASE WHEN n.nspname = $2 THEN substr(format_type(t.oid, NULL), length(quote_ident($2)) + 2)
           ELSE format_type(t.oid, NULL) END AS spelled
FROM unnest($1::text[]) AS a (asked)
LEFT JOIN pg_type t ON t.oid = coalesce(to_regtype(a.asked), to_regtype(quote_ident($2) || '.' || a.asked))
LEFT JOIN pg_namespace n ON n.oid = t.typnamespace
