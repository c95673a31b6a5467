-- A graph can be deleted: whoever may change records may delete them.
-- Runs with search_path set to schema syncline.

DO $$
DECLARE
    given record;
BEGIN
    FOR given IN
        SELECT DISTINCT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(r.rolname) END AS whom
        FROM pg_class c CROSS JOIN aclexplode(c.relacl) a LEFT JOIN pg_roles r ON r.oid = a.grantee
        WHERE c.oid = to_regclass('graphs') AND a.grantee <> c.relowner
          AND (a.grantee = 0 OR r.oid IS NOT NULL) AND a.privilege_type = 'UPDATE'
        ORDER BY 1
    LOOP
        EXECUTE format('GRANT DELETE ON graphs TO %s', given.whom);
    END LOOP;
END
$$;
