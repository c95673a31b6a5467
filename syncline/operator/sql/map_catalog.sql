-- What of a schema's tables a map has to fit, besides what capture asks.

-- name: map_columns
-- The columns of the tables $2 of schema $1, with their types in full.
SELECT c.relname AS table_name, a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type,
       a.attnotnull AS not_null, a.attgenerated <> '' AS generated, a.attidentity = 'a' AS identity_always,
       a.attidentity <> '' OR coalesce(pg_get_expr(d.adbin, d.adrelid), '') ~ '^nextval\(' AS numbered,
       coalesce(information_schema._pg_char_max_length(a.atttypid, a.atttypmod), 0) AS longest,
       c.relkind IN ('r', 'p') AS stores
FROM pg_namespace n
JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = ANY ($2::text[]) AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE n.nspname = $1
ORDER BY c.relname, a.attnum

-- name: map_constraints
-- The primary keys, unique constraints and foreign keys of the tables $2 of schema $1. Of a foreign key to another
-- schema the table is qualified.
SELECT c.relname AS table_name, k.contype AS kind,
       ARRAY(
           SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY AS p (number, place)
           JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = p.number ORDER BY p.place
       ) AS columns,
       CASE WHEN m.nspname = $1 THEN f.relname ELSE m.nspname || '.' || f.relname END AS parent,
       ARRAY(
           SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY AS p (number, place)
           JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = p.number ORDER BY p.place
       ) AS parent_columns
FROM pg_namespace n
JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = ANY ($2::text[])
JOIN pg_constraint k ON k.conrelid = c.oid AND k.contype IN ('p', 'u', 'f')
LEFT JOIN pg_class f ON f.oid = k.confrelid
LEFT JOIN pg_namespace m ON m.oid = f.relnamespace
WHERE n.nspname = $1 AND k.conparentid = 0
ORDER BY c.relname, k.contype, k.conname

-- name: map_tables
-- The tables of schema $1 with rows of their own, without the engine's, those of extensions, and partitions.
SELECT c.relname AS name
FROM pg_namespace n JOIN pg_class c ON c.relnamespace = n.oid
WHERE n.nspname = $1 AND c.relkind IN ('r', 'p') AND NOT c.relispartition
    AND c.relname !~ '^sync_' AND c.relname <> 'alembic_version'
    AND NOT EXISTS (
        SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
    )
ORDER BY c.relname

-- name: map_value
SELECT @{expression}

-- name: map_expression
SELECT (@{expression}) AS value FROM @{rows} AS @{alias}

-- name: map_row_expression
-- WHERE refuses what is no value of one row: aggregates and window functions.
SELECT FROM @{rows} AS @{alias} WHERE (@{expression}) IS NOT NULL

-- name: map_assignment
INSERT INTO @{table} (@{column}) SELECT (@{expression}) FROM @{rows} AS @{alias}

-- name: map_comparison
-- A merge compares the value with that of the target.
SELECT FROM @{rows} AS @{alias}, @{table} AS sync_target
WHERE CASE WHEN false THEN sync_target.@{column} ELSE (@{expression}) END IS NOT NULL

-- name: map_stage
CREATE TEMP TABLE @{stage} (@{definitions}) ON COMMIT DROP

-- name: map_strangers
SELECT EXISTS (SELECT FROM (SELECT * FROM @{target} LIMIT @{limit}) t WHERE @{strange})

-- name: column_owner
-- Who owns table $1, whether it has column $3, and the role by which this one may alter it: itself, or $2.
SELECT current_user::text AS role, pg_get_userbyid(c.relowner)::text AS owner,
       EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = $3 AND NOT a.attisdropped) AS there,
       (
           SELECT format_type(a.atttypid, a.atttypmod) FROM pg_attribute a
           WHERE a.attrelid = c.oid AND a.attname = $3 AND NOT a.attisdropped
       ) AS type,
       (
           SELECT r.name FROM unnest(ARRAY[current_user::text, $2]) WITH ORDINALITY AS r (name, place)
           JOIN pg_roles o ON o.rolname = r.name
           WHERE pg_has_role(o.oid, c.relowner, 'USAGE')
             AND pg_has_role(o.oid, CASE WHEN current_setting('server_version_num')::int < 160000 THEN 'MEMBER' ELSE 'SET' END)
           ORDER BY r.place LIMIT 1
       ) AS acting
FROM pg_class c WHERE c.oid = to_regclass($1)

-- name: columns_kept
-- Those of the schemas $1 whose known columns this role may read.
SELECT n.nspname::text AS schema
FROM pg_namespace n
JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = 'sync_mapped'
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'columns'
WHERE n.nspname = ANY ($1::text[]) AND has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')

-- name: columns_waiting
SELECT '@{name}' AS schema, columns ->> 'new' AS new
FROM @{schema}.sync_mapped WHERE NOT gone AND columns -> 'new' <> '[]'

-- name: targets_made
-- The tables that this transaction has made: a first load may put their keys and indexes off.
INSERT INTO @{schema}.sync_made (table_name)
SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = '@{name}' AND c.relkind = 'r' AND c.xmin = pg_current_xact_id()::xid
ON CONFLICT DO NOTHING
