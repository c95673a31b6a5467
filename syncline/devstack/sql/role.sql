DO $roles$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = @{text}) THEN
        CREATE ROLE @{name} LOGIN;
    END IF;
END $roles$;
