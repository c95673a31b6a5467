-- What would not be there any more under the live schema's name, and what from elsewhere is bound to its tables: a view
-- or a foreign key goes with them, whatever schema they come to be in, and is gone when that is dropped.
SELECT format('the shadow has no %s ''%s''',
              CASE c.relkind WHEN 'i' THEN 'index' WHEN 'I' THEN 'index' WHEN 'v' THEN 'view'
                             WHEN 'm' THEN 'materialized view' WHEN 'S' THEN 'sequence' ELSE 'table' END,
              c.relname) AS reason
FROM pg_class c
WHERE c.relnamespace = to_regnamespace(quote_ident($1)) AND c.relkind IN ('r', 'p', 'v', 'm', 'i', 'I', 'S', 'f')
    AND to_regclass(quote_ident($2) || '.' || quote_ident(c.relname)) IS NULL
UNION
SELECT format('view ''%s.%s'' reads the live tables and would read the shadow''s', v.relnamespace::regnamespace, v.relname)
FROM pg_depend d
JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
JOIN pg_class v ON v.oid = r.ev_class
JOIN pg_class c ON d.refclassid = 'pg_class'::regclass AND c.oid = d.refobjid
WHERE c.relnamespace = to_regnamespace(quote_ident($1)) AND v.relnamespace <> c.relnamespace
    AND v.relkind IN ('v', 'm')
UNION
SELECT format('table ''%s.%s'' references the live table ''%s'' (%s) and would reference the shadow''s',
              r.relnamespace::regnamespace, r.relname, c.relname, k.conname)
FROM pg_constraint k
JOIN pg_class r ON r.oid = k.conrelid
JOIN pg_class c ON c.oid = k.confrelid
WHERE k.contype = 'f' AND k.conparentid = 0
    AND c.relnamespace = to_regnamespace(quote_ident($1)) AND r.relnamespace <> c.relnamespace
ORDER BY 1
