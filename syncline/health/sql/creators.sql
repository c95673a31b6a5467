-- Who owns or may create in a schema and is neither a superuser nor this role, nor one whose rights this role has.
SELECT n.nspname AS schema, CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee)::text END AS role
FROM pg_namespace n
CROSS JOIN LATERAL aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a
LEFT JOIN pg_roles r ON r.oid = a.grantee
WHERE n.nspname = ANY ($1::text[]) AND a.privilege_type = 'CREATE'
  AND (a.grantee = 0 OR NOT r.rolsuper AND r.rolname <> current_user AND a.grantee <> n.nspowner)
ORDER BY n.nspname, 2
