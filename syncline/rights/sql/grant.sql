-- Grants what is there; `*` is every object of the schema, `-` every one whose name does not begin with sync_.
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
