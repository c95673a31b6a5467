-- Roles of the development stack.

-- name: role
DO $roles$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = @{text}) THEN
        CREATE ROLE @{name} LOGIN;
    END IF;
END $roles$;

-- name: hand_over
-- What a superuser made in schemas that are no system's. Sequences and indexes go with their tables.
DO $owner$
DECLARE
    statement text;
BEGIN
    FOR statement IN
        WITH schemas AS (
            SELECT oid, nspname FROM pg_namespace
            WHERE nspname !~ '^pg_' AND nspname NOT IN ('information_schema', 'public')
        )
        SELECT format('ALTER SCHEMA %I OWNER TO %I', nspname, @{owner})
        FROM pg_namespace
        WHERE oid IN (SELECT oid FROM schemas) AND nspowner = 10
        UNION ALL
        SELECT format('ALTER TABLE %I.%I OWNER TO %I', nspname, relname, @{owner})
        FROM schemas s JOIN pg_class c ON c.relnamespace = s.oid
        WHERE relkind IN ('r', 'p', 'v', 'm', 'f') AND relowner = 10
        UNION ALL
        SELECT format('ALTER ROUTINE %I.%I(%s) OWNER TO %I', nspname, proname,
                      pg_get_function_identity_arguments(p.oid), @{owner})
        FROM schemas s JOIN pg_proc p ON p.pronamespace = s.oid
        WHERE proowner = 10 AND prokind IN ('f', 'p')
    LOOP
        EXECUTE statement;
    END LOOP;
END $owner$;
