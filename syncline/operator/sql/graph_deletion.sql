-- Delete a graph: which relations of its schema are Syncline's, what depends on them, what is left.

-- name: deletion_lock
SELECT pg_try_advisory_xact_lock(hashtextextended('syncline:' || $1, 0))

-- name: deletion_tables
-- Of the named tables, those that are there, with their rows as the planner estimates them.
SELECT c.relname::text AS name, greatest(c.reltuples, 0)::bigint AS rows
FROM pg_catalog.pg_class c
WHERE c.relnamespace = to_regnamespace(quote_ident($1)) AND c.relkind IN ('r', 'p') AND c.relname = ANY ($2::text[])
ORDER BY c.relname

-- name: deletion_dependents
-- What is bound to the named tables, and is none of them: it would be lost with them.
WITH ours AS (
    SELECT c.oid FROM pg_catalog.pg_class c
    WHERE c.relnamespace = to_regnamespace(quote_ident($1)) AND c.relkind IN ('r', 'p') AND c.relname = ANY ($2::text[])
)
SELECT format('%s %I.%I', CASE v.relkind WHEN 'm' THEN 'materialized view' ELSE 'view' END,
              n.nspname, v.relname) AS dependent
FROM pg_catalog.pg_depend d
JOIN pg_catalog.pg_rewrite r ON d.classid = 'pg_catalog.pg_rewrite'::regclass AND r.oid = d.objid
JOIN pg_catalog.pg_class v ON v.oid = r.ev_class
JOIN pg_catalog.pg_namespace n ON n.oid = v.relnamespace
WHERE d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid IN (SELECT oid FROM ours) AND v.relkind IN ('v', 'm')
UNION
SELECT format('foreign key %I of table %I.%I', f.conname, n.nspname, c.relname)
FROM pg_catalog.pg_constraint f
JOIN pg_catalog.pg_class c ON c.oid = f.conrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE f.contype = 'f' AND f.confrelid IN (SELECT oid FROM ours) AND f.conrelid NOT IN (SELECT oid FROM ours)
ORDER BY 1

-- name: deletion_functions
-- The trigger functions of the bookkeeping tables.
SELECT p.oid::regprocedure::text AS signature, p.proname::text AS name
FROM pg_catalog.pg_proc p
WHERE p.pronamespace = to_regnamespace(quote_ident($1)) AND p.proname = ANY ($2::text[])
ORDER BY 1

-- name: deletion_left
-- Whether anything is left in the schema.
SELECT EXISTS (SELECT FROM pg_catalog.pg_class WHERE relnamespace = to_regnamespace(quote_ident($1)))
    OR EXISTS (SELECT FROM pg_catalog.pg_proc WHERE pronamespace = to_regnamespace(quote_ident($1)))
    OR EXISTS (SELECT FROM pg_catalog.pg_type WHERE typnamespace = to_regnamespace(quote_ident($1)))

-- name: deletion_of_others
-- Of the named tables, those that this role may not drop.
SELECT c.relname::text AS name, pg_catalog.pg_get_userbyid(c.relowner)::text AS owner
FROM pg_catalog.pg_class c
WHERE c.relnamespace = to_regnamespace(quote_ident($1)) AND c.relkind IN ('r', 'p') AND c.relname = ANY ($2::text[])
    AND NOT pg_catalog.pg_has_role(coalesce($3::text, current_user::text)::name, c.relowner, 'USAGE')
ORDER BY 1
LIMIT 1
