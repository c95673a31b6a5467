SELECT rolname AS name, rolsuper AS superuser, rolcreaterole AS createrole, rolbypassrls AS bypassrls
FROM pg_roles WHERE rolname = current_user
