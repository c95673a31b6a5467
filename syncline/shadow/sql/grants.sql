-- Who may do what in the live schema, as statements that let them do it in the shadow's tables of the same names.
WITH live AS (
    SELECT n.oid, NULL::name AS name, n.nspacl AS acl, n.nspowner AS owner, 'SCHEMA' AS kind
    FROM pg_namespace n WHERE n.nspname = $1
    UNION ALL
    SELECT n.oid, c.relname, c.relacl, c.relowner, CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = $1 AND c.relkind IN ('r', 'p', 'v', 'm', 'S')
        AND to_regclass(quote_ident($2) || '.' || quote_ident(c.relname)) IS NOT NULL
)
SELECT format(
    'GRANT %s ON %s %s TO %s%s',
    a.privilege_type, live.kind, quote_ident($2) || coalesce('.' || quote_ident(live.name), ''),
    CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END,
    CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END
) AS statement
FROM live, aclexplode(live.acl) a
WHERE a.grantee <> live.owner
ORDER BY 1
