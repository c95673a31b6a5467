-- Of the rights $1 to $5, those that the present role lacks on objects that are there. A name of null is every one.
WITH wanted AS (
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::boolean[], $5::text[]) AS w (kind, schema, name, ours, privilege)
), places AS MATERIALIZED (
    SELECT oid, nspname FROM pg_namespace WHERE nspname IN (SELECT schema FROM wanted)
), relations AS MATERIALIZED (
    SELECT c.oid, p.nspname, c.relname, c.relkind
    FROM places p JOIN pg_class c ON c.relnamespace = p.oid
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
)
SELECT w.kind, quote_ident(current_database()) AS place, w.privilege
FROM wanted w
WHERE w.kind = 'database' AND NOT has_database_privilege(current_database(), w.privilege)
UNION
SELECT w.kind, quote_ident(p.nspname), w.privilege
FROM wanted w JOIN places p ON p.nspname = w.schema
WHERE w.kind = 'schema' AND NOT has_schema_privilege(p.oid, w.privilege)
UNION
SELECT w.kind, quote_ident(r.nspname) || '.' || quote_ident(r.relname), w.privilege
FROM wanted w
JOIN relations r ON r.nspname = w.schema AND r.relkind <> 'S'
    AND (r.relname = w.name OR w.name IS NULL AND (w.ours OR r.relname !~ '^sync_'))
WHERE w.kind = 'table' AND NOT has_table_privilege(r.oid, w.privilege)
UNION
SELECT w.kind, quote_ident(r.nspname) || '.' || quote_ident(r.relname), w.privilege
FROM wanted w
JOIN relations r ON r.nspname = w.schema AND r.relkind = 'S'
    AND (r.relname = w.name OR w.name IS NULL AND (w.ours OR r.relname !~ '^sync_'))
WHERE w.kind = 'sequence' AND NOT has_sequence_privilege(r.oid, w.privilege)
UNION
SELECT w.kind,
       quote_ident(p.nspname) || '.' || quote_ident(f.proname) || '(' || pg_get_function_identity_arguments(f.oid) || ')',
       w.privilege
FROM wanted w
JOIN places p ON p.nspname = w.schema
JOIN pg_proc f ON f.pronamespace = p.oid AND (f.proname = w.name OR w.name IS NULL)
WHERE w.kind = 'function' AND f.prokind = 'f' AND f.prorettype <> 'trigger'::regtype
    AND NOT has_function_privilege(f.oid, w.privilege)
UNION
SELECT w.kind, quote_ident(r.rolname), w.privilege
FROM wanted w JOIN pg_roles r ON r.rolname = w.name
WHERE w.kind = 'role' AND NOT pg_has_role(r.oid, w.privilege)
ORDER BY 1, 2, 3
