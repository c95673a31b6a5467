-- Whether role $1, as whom schemas are made, is there and may be acted as, may create, and owns the schemas $2.
SELECT r.oid IS NOT NULL AS known,
       coalesce(pg_has_role(r.oid, 'MEMBER'), false) AS member,
       coalesce(has_database_privilege(r.oid, current_database(), 'CREATE'), false) AS creates,
       quote_ident(current_database()) AS database,
       ARRAY(
           SELECT DISTINCT quote_ident(pg_get_userbyid(n.nspowner))
           FROM pg_namespace n
           WHERE n.nspname = ANY ($2::text[]) AND NOT coalesce(pg_has_role(r.oid, n.nspowner, 'USAGE'), false)
       ) AS owners
FROM (SELECT) AS one LEFT JOIN pg_roles r ON r.rolname = $1
