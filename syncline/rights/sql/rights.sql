-- Privileges that a role needs, and those that it lacks.

-- name: missing
-- Of the privileges $1 to $5, those that the current role lacks on existing objects. A null name means every
-- object.
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

-- name: creating
-- Whether role $1, which owns created schemas, exists, may be assumed, may create, and owns the schemas $2.
SELECT r.oid IS NOT NULL AS known,
       coalesce(pg_has_role(r.oid, 'MEMBER'), false) AS member,
       coalesce(has_database_privilege(r.oid, current_database(), 'CREATE'), false) AS creates,
       quote_ident(current_database()) AS database,
       ARRAY(
           SELECT DISTINCT quote_ident(pg_get_userbyid(n.nspowner))
           FROM pg_namespace n
           -- public is never promoted.
           WHERE n.nspname = ANY ($2::text[]) AND n.nspname <> 'public' AND NOT coalesce(pg_has_role(r.oid, n.nspowner, 'USAGE'), false)
       ) AS owners
FROM (SELECT) AS one LEFT JOIN pg_roles r ON r.rolname = $1

-- name: schema
CREATE SCHEMA IF NOT EXISTS @{schema} AUTHORIZATION @{owner};

-- name: grant
-- Grants on existing objects; `*` is every object of the schema, `-` every one whose name does not begin with
-- sync_.
DO @{tag}
DECLARE
    statement text;
BEGIN
    FOR statement IN
        WITH wanted (role, privileges, kind, schema, objects) AS (VALUES
@{wanted}
        ), relations AS (
            SELECT n.nspname, c.relname, CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS kind
            FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
        )
        SELECT format('GRANT %s ON DATABASE %I TO %I', privileges, current_database(), role)
        FROM wanted WHERE kind = 'DATABASE'
        UNION ALL
        SELECT format('GRANT %s ON SCHEMA %I TO %I', privileges, schema, role)
        FROM wanted JOIN pg_namespace ON nspname = schema WHERE kind = 'SCHEMA'
        UNION ALL
        SELECT format('GRANT %s ON %s %I.%I TO %I', privileges, w.kind, schema, relname, role)
        FROM wanted w JOIN relations r ON r.kind = w.kind AND nspname = schema
            AND (relname = ANY (objects) OR objects = '{*}' OR objects = '{-}' AND relname !~ '^sync_')
        UNION ALL
        SELECT format('GRANT %s ON FUNCTION %I.%I(%s) TO %I', privileges, schema, proname,
                      pg_get_function_identity_arguments(p.oid), role)
        FROM wanted JOIN pg_namespace n ON nspname = schema JOIN pg_proc p ON pronamespace = n.oid
        WHERE kind = 'FUNCTION' AND prokind = 'f' AND prorettype <> 'trigger'::regtype
            AND (proname = ANY (objects) OR objects = '{*}')
    LOOP
        EXECUTE statement;
    END LOOP;
END @{tag};

-- name: later
-- The same for objects that the owner creates later.
ALTER DEFAULT PRIVILEGES FOR ROLE @{owner} IN SCHEMA @{schema}
    GRANT @{privileges} ON @{what} TO @{worker};

-- name: member
-- On PostgreSQL 16 and newer the worker has the owner's privileges only while it acts as the owner
-- (SYNCLINE_OWNER_ROLE).
DO @{tag}
BEGIN
    EXECUTE format('GRANT %I TO %I', @{owner}, @{worker}) || CASE
        WHEN current_setting('server_version_num')::int >= 160000 THEN ' WITH INHERIT FALSE, SET TRUE'
        ELSE ''
    END;
END @{tag};

-- name: statistics
-- To see how long other roles' transactions have been open.
GRANT pg_read_all_stats TO @{worker};
