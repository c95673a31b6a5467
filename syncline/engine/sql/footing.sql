SELECT current_user::text AS role, p.oid IS NOT NULL AS there,
       coalesce(has_table_privilege(p.oid, 'SELECT'), false) AS readable,
       coalesce(has_table_privilege(p.oid, 'SELECT') AND has_table_privilege(p.oid, 'INSERT')
           AND has_table_privilege(p.oid, 'UPDATE'), false) AS writable
FROM (SELECT to_regclass($1)::oid AS oid) p
