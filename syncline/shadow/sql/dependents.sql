-- What others have in a graph's schema, or bound to its tables, and how it comes along when a rebuilt schema takes
-- its place. $1: the live schema, $2: the other one, $3: the tables that the graph's map fills, $4: the role that
-- makes the changes; null: the connection's.

-- name: places
place AS (
    SELECT (SELECT oid FROM pg_namespace WHERE nspname = $1::text) AS live,
           (SELECT oid FROM pg_namespace WHERE nspname = $2::text) AS other,
           coalesce($4::text, current_user::text) AS role,
           -- Schema public is others' too, so it stays, and only the tables of the graph move.
           $1::text <> 'public' AS renamed
), ours AS (
    SELECT c.oid, c.relname AS name, c.relkind AS kind, c.relowner AS owner, c.reloptions, c.reltype, t.typarray,
           c.relrowsecurity AS secured, c.relforcerowsecurity AS forced, o.oid AS other,
           o.relrowsecurity AS other_secured, o.relforcerowsecurity AS other_forced, o.reloptions AS other_options
    FROM place p
    JOIN pg_class c ON c.relnamespace = p.live AND c.relkind IN ('r', 'p')
    JOIN pg_type t ON t.oid = c.reltype
    LEFT JOIN pg_class o ON o.relnamespace = p.other AND o.relname = c.relname AND o.relkind IN ('r', 'p')
    WHERE c.relname = ANY ($3::text[]) OR o.oid IS NOT NULL
), others AS (
    -- A sequence goes with the column that owns it.
    SELECT c.oid, c.relname AS name, c.relowner AS owner,
           CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'S' THEN 'SEQUENCE'
                          WHEN 'f' THEN 'FOREIGN TABLE' ELSE 'TABLE' END AS kind
    FROM place p
    JOIN pg_class c ON c.relnamespace = p.live AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
    WHERE p.renamed AND c.relname <> ALL ($3::text[])
      AND NOT EXISTS (SELECT FROM pg_class o WHERE o.relnamespace = p.other AND o.relname = c.relname)
      AND NOT EXISTS (
          SELECT FROM pg_depend d
          WHERE c.relkind = 'S' AND d.classid = 'pg_class'::regclass AND d.objid = c.oid
            AND d.refclassid = 'pg_class'::regclass AND d.refobjsubid > 0 AND d.deptype IN ('a', 'i')
      )
), types AS (
    SELECT t.oid, t.typname AS name, t.typowner AS owner,
           CASE t.typtype WHEN 'd' THEN 'DOMAIN' ELSE 'TYPE' END AS kind
    FROM place p
    JOIN pg_type t ON t.typnamespace = p.live
    LEFT JOIN pg_class c ON c.oid = t.typrelid
    WHERE p.renamed AND (t.typtype IN ('e', 'd') OR (t.typtype = 'c' AND c.relkind = 'c'))
      AND NOT EXISTS (SELECT FROM pg_type o WHERE o.typnamespace = p.other AND o.typname = t.typname)
), routines AS (
    SELECT f.oid, f.proname AS name, f.proowner AS owner, pg_get_function_identity_arguments(f.oid) AS arguments
    FROM place p
    JOIN pg_proc f ON f.pronamespace = p.live
    WHERE p.renamed AND NOT EXISTS (
        SELECT FROM pg_proc o
        WHERE o.pronamespace = p.other AND o.proname = f.proname AND o.proargtypes = f.proargtypes
    )
), bound AS (
    -- By the table's own identity or that of its row type, which follow it into the other schema.
    SELECT d.classid, d.objid, d.objsubid, o.name AS table_name
    FROM ours o
    JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = o.oid
    WHERE d.deptype IN ('n', 'a')
    UNION
    SELECT d.classid, d.objid, d.objsubid, o.name
    FROM ours o
    JOIN pg_depend d ON d.refclassid = 'pg_type'::regclass AND d.refobjid IN (o.reltype, o.typarray)
    WHERE d.deptype IN ('n', 'a')
), views AS (
    SELECT DISTINCT v.oid, v.relname AS name, n.nspname AS schema, v.relowner AS owner, v.reloptions
    FROM bound b
    JOIN pg_rewrite r ON b.classid = 'pg_rewrite'::regclass AND r.oid = b.objid AND r.rulename = '_RETURN'
    JOIN pg_class v ON v.oid = r.ev_class AND v.relkind = 'v'
    JOIN pg_namespace n ON n.oid = v.relnamespace
), keys AS (
    -- Foreign keys of tables of others.
    SELECT k.oid, k.conname AS name, k.convalidated AS valid, r.relname AS table_name,
           r.relkind AS kind, r.relowner AS owner, n.nspname AS schema
    FROM ours o
    JOIN pg_constraint k ON k.confrelid = o.oid AND k.contype = 'f' AND k.conparentid = 0
    JOIN pg_class r ON r.oid = k.conrelid
    JOIN pg_namespace n ON n.oid = r.relnamespace
    WHERE k.conrelid NOT IN (SELECT oid FROM ours)
), triggers AS (
    -- Those that the other tables have too are the engine's.
    SELECT t.oid, t.tgname AS name, t.tgenabled AS enabled, o.oid AS table_oid, o.name AS table_name
    FROM ours o
    JOIN pg_trigger t ON t.tgrelid = o.oid AND NOT t.tgisinternal AND t.tgparentid = 0
    WHERE NOT EXISTS (SELECT FROM pg_trigger b WHERE b.tgrelid = o.other AND b.tgname = t.tgname)
), sequences AS (
    -- Sequences that columns of the tables own, and that the other schema has none of: those of serial columns.
    SELECT s.oid, s.relname AS name, s.relowner AS owner, o.name AS table_name, a.attname AS column_name,
           -- A table that is not made yet gets all of the columns that the map fills; those of others are told of anyway.
           o.other IS NULL OR b.attname IS NOT NULL AS handed_on, t.relowner AS table_owner
    FROM place p
    JOIN pg_class s ON s.relnamespace = p.live AND s.relkind = 'S'
    JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = s.oid AND d.deptype = 'a'
        AND d.refclassid = 'pg_class'::regclass AND d.refobjsubid > 0
    JOIN ours o ON o.oid = d.refobjid
    JOIN pg_attribute a ON a.attrelid = o.oid AND a.attnum = d.refobjsubid
    LEFT JOIN pg_class t ON t.oid = o.other
    LEFT JOIN pg_attribute b ON b.attrelid = o.other AND b.attname = a.attname AND NOT b.attisdropped
    WHERE NOT EXISTS (SELECT FROM pg_class x WHERE x.relnamespace = p.other AND x.relname = s.relname)
)

-- name: bound
-- Objects that are bound to the tables and that no statement here binds to the other ones.
WITH @{places}
SELECT DISTINCT format('%s is bound to table ''%s''', pg_describe_object(b.classid, b.objid, b.objsubid), b.table_name)
           AS problem
FROM bound b
WHERE NOT CASE
    WHEN b.classid = 'pg_rewrite'::regclass THEN EXISTS (
        SELECT FROM pg_rewrite r JOIN views v ON v.oid = r.ev_class WHERE r.oid = b.objid AND r.rulename = '_RETURN'
    )
    WHEN b.classid = 'pg_trigger'::regclass THEN EXISTS (
        SELECT FROM pg_trigger t JOIN ours o ON o.oid = t.tgrelid WHERE t.oid = b.objid
    )
    WHEN b.classid = 'pg_constraint'::regclass THEN EXISTS (
        SELECT FROM pg_constraint k JOIN ours o ON o.oid = k.conrelid WHERE k.oid = b.objid
    ) OR EXISTS (SELECT FROM keys k WHERE k.oid = b.objid AND k.kind = 'r')
    WHEN b.classid = 'pg_policy'::regclass THEN EXISTS (
        SELECT FROM pg_policy p JOIN ours o ON o.oid = p.polrelid WHERE p.oid = b.objid
    )
    WHEN b.classid = 'pg_attrdef'::regclass THEN EXISTS (
        SELECT FROM pg_attrdef a JOIN ours o ON o.oid = a.adrelid WHERE a.oid = b.objid
    )
    WHEN b.classid = 'pg_class'::regclass THEN EXISTS (
        SELECT FROM pg_class c WHERE c.oid = b.objid AND c.relkind IN ('i', 'I', 'S')
    ) OR b.objid IN (SELECT oid FROM ours)
    ELSE b.classid IN ('pg_statistic_ext'::regclass, 'pg_publication_rel'::regclass)
END
UNION
SELECT format('publication ''%s'' has table ''%s''', p.pubname, p.tablename)
FROM pg_publication_tables p JOIN ours o ON p.schemaname = $1::text AND o.name = p.tablename
WHERE o.name = ANY ($3::text[])
UNION
-- What takes numbers of a sequence that stays behind with the column that owns it.
SELECT format('%s takes its numbers from ''%s'', of column ''%s'' of table ''%s''',
              pg_describe_object(d.classid, d.objid, d.objsubid), s.name, s.column_name, s.table_name)
FROM sequences s
JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = s.oid AND d.deptype = 'n'
LEFT JOIN pg_attrdef f ON d.classid = 'pg_attrdef'::regclass AND f.oid = d.objid
WHERE NOT s.handed_on AND (f.oid IS NULL OR f.adrelid NOT IN (SELECT oid FROM ours))
UNION
SELECT format('table ''%s'' has a security label', o.name)
FROM ours o JOIN pg_seclabel l ON l.classoid = 'pg_class'::regclass AND l.objoid = o.oid
UNION
SELECT format('table ''%s'' is partitioned', o.name) FROM ours o WHERE o.kind = 'p'
UNION
-- Objects of the schema that cannot be moved to another one.
SELECT format('%s is in the schema', pg_describe_object(d.classid, d.objid, d.objsubid))
FROM place p
JOIN pg_depend d ON d.refclassid = 'pg_namespace'::regclass AND d.refobjid = p.live
WHERE p.renamed AND NOT CASE
    WHEN d.classid = 'pg_type'::regclass THEN EXISTS (
        SELECT FROM pg_type t WHERE t.oid = d.objid AND t.typtype IN ('e', 'd', 'c')
    )
    ELSE d.classid IN (
        'pg_class'::regclass, 'pg_proc'::regclass, 'pg_statistic_ext'::regclass, 'pg_default_acl'::regclass
    )
END
UNION
SELECT format('%s belongs to role ''%s'', of which ''%s'' is no member', f.object, pg_get_userbyid(f.owner), p.role)
FROM place p
CROSS JOIN (
    SELECT format('table ''%s.%s''', $1::text, name) AS object, owner FROM ours
    UNION SELECT format('%s ''%s.%s''', lower(kind), $1::text, name), owner FROM others
    UNION SELECT format('%s ''%s.%s''', lower(kind), $1::text, name), owner FROM types
    UNION SELECT format('function ''%s.%s''', $1::text, name), owner FROM routines
    UNION SELECT format('view ''%s.%s''', schema, name), owner FROM views
    UNION SELECT format('table ''%s.%s''', schema, table_name), owner FROM keys
    UNION SELECT format('sequence ''%s.%s''', $1::text, name), owner FROM sequences WHERE handed_on
    UNION
    SELECT format('a default privilege of schema ''%s''', $1::text), a.defaclrole
    FROM place p JOIN pg_default_acl a ON a.defaclnamespace = p.live AND p.renamed
) f
WHERE NOT pg_has_role(p.role::name, f.owner, 'USAGE')
ORDER BY 1

-- name: columns_of_others
-- Columns of the tables that the map does not fill ($5: table, $6: column): the values that they have are others'.
WITH @{places}, filled AS (
    SELECT * FROM unnest($5::text[], $6::text[]) AS f (table_name, column_name)
)
SELECT format('column ''%s'' of table ''%s'' has values that no cycle makes', a.attname, o.name) AS problem
FROM ours o
JOIN pg_attribute a ON a.attrelid = o.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
WHERE o.name IN (SELECT table_name FROM filled)
  AND NOT EXISTS (SELECT FROM filled f WHERE f.table_name = o.name AND f.column_name = a.attname)
UNION
SELECT format('column ''%s'' of table ''%s'' is %s, and %s where it is made again', a.attname, o.name,
              format_type(a.atttypid, a.atttypmod), format_type(b.atttypid, b.atttypmod))
FROM ours o
JOIN pg_attribute a ON a.attrelid = o.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_attribute b ON b.attrelid = o.other AND b.attname = a.attname AND NOT b.attisdropped
WHERE (a.atttypid, a.atttypmod) IS DISTINCT FROM (b.atttypid, b.atttypmod) AND o.name = ANY ($3::text[])
ORDER BY 1

-- name: missing_tables
-- The tables of the map that the other schema lacks: tables that a graph's owner has made.
WITH @{places}
SELECT format('table %I', o.name) AS object, format(
    'CREATE TABLE %I.%I (LIKE %I.%I INCLUDING DEFAULTS INCLUDING GENERATED INCLUDING IDENTITY INCLUDING STORAGE'
    ' INCLUDING COMPRESSION INCLUDING CONSTRAINTS INCLUDING COMMENTS)', $2::text, o.name, $1::text, o.name
) AS statement
FROM ours o
WHERE o.other IS NULL
ORDER BY 1

-- name: missing_parts
-- Generated columns, defaults, constraints, indexes, settings and comments that the other schema's tables lack, by name. A definition
-- names the table that it is of, or refers to, at a known place. Defaults that the engine's own sequences give are of each schema.
WITH @{places}, constraints AS (
    SELECT k.conname AS name, o.name AS table_name, pg_get_constraintdef(k.oid) AS definition,
           CASE k.contype WHEN 'p' THEN 10 WHEN 'u' THEN 11 WHEN 'f' THEN 30 ELSE 12 END AS step,
           (SELECT format(
                       'FOREIGN KEY (%s) REFERENCES ', string_agg(quote_ident(a.attname), ', ' ORDER BY c.place)
                   )
            FROM unnest(k.conkey) WITH ORDINALITY AS c (number, place)
            JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = c.number) AS head,
           r.name AS referred
    FROM ours o
    JOIN pg_constraint k ON k.conrelid = o.oid AND k.contype IN ('p', 'u', 'x', 'c', 'f') AND k.conparentid = 0
    LEFT JOIN ours r ON k.contype = 'f' AND r.oid = k.confrelid
    WHERE o.other IS NOT NULL
      AND NOT EXISTS (SELECT FROM pg_constraint b WHERE b.conrelid = o.other AND b.conname = k.conname)
), indexes AS (
    SELECT i.relname AS name, o.name AS table_name, pg_get_indexdef(i.oid) AS definition,
           format('CREATE %sINDEX %I ON ', CASE WHEN x.indisunique THEN 'UNIQUE ' ELSE '' END, i.relname) AS head,
           format('%I.%I', $1::text, o.name) AS place
    FROM ours o
    CROSS JOIN place p
    JOIN pg_index x ON x.indrelid = o.oid AND x.indisvalid
    JOIN pg_class i ON i.oid = x.indexrelid
    WHERE o.other IS NOT NULL
      AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.oid AND k.conrelid = o.oid)
      AND NOT EXISTS (SELECT FROM pg_class b WHERE b.relnamespace = p.other AND b.relname = i.relname)
)
SELECT object, statement FROM (
    SELECT 5 AS step, format('column %I of %I', a.attname, o.name) AS object, format(
        'ALTER TABLE %I.%I ADD COLUMN %I %s GENERATED ALWAYS AS (%s) %s', $2::text, o.name, a.attname,
        format_type(a.atttypid, a.atttypmod), pg_get_expr(d.adbin, d.adrelid),
        CASE a.attgenerated WHEN 's' THEN 'STORED' ELSE 'VIRTUAL' END
    ) AS statement
    FROM ours o
    JOIN pg_attribute a ON a.attrelid = o.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated <> ''
    JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE o.other IS NOT NULL
      AND NOT EXISTS (SELECT FROM pg_attribute b WHERE b.attrelid = o.other AND b.attname = a.attname)
    UNION ALL
    SELECT 6, format('NOT NULL of %I.%I', o.name, a.attname),
           format('ALTER TABLE %I.%I ALTER COLUMN %I SET NOT NULL', $2::text, o.name, a.attname)
    FROM ours o
    JOIN pg_attribute a ON a.attrelid = o.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attnotnull
    JOIN pg_attribute b ON b.attrelid = o.other AND b.attname = a.attname AND NOT b.attisdropped AND NOT b.attnotnull
    UNION ALL
    SELECT 7, format('default of %I.%I', o.name, a.attname), format(
        'ALTER TABLE %I.%I ALTER COLUMN %I SET DEFAULT %s', $2::text, o.name, a.attname, pg_get_expr(d.adbin, d.adrelid)
    )
    FROM ours o
    CROSS JOIN place p
    JOIN pg_attribute a ON a.attrelid = o.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
    JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    JOIN pg_attribute b ON b.attrelid = o.other AND b.attname = a.attname AND NOT b.attisdropped AND b.attgenerated = ''
        AND b.attidentity = ''
    LEFT JOIN pg_attrdef e ON e.adrelid = b.attrelid AND e.adnum = b.attnum
    WHERE pg_get_expr(d.adbin, d.adrelid) IS DISTINCT FROM pg_get_expr(e.adbin, e.adrelid)
      AND NOT EXISTS (
          SELECT FROM pg_depend u
          JOIN pg_class s ON s.oid = u.refobjid AND s.relkind = 'S' AND s.relnamespace = p.live
          JOIN pg_class x ON x.relnamespace = p.other AND x.relname = s.relname
          WHERE u.classid = 'pg_attrdef'::regclass AND u.objid = d.oid AND u.refclassid = 'pg_class'::regclass
      )
    UNION ALL
    SELECT c.step, format('constraint %I of %I', c.name, c.table_name) AS object, format(
        'ALTER TABLE %I.%I ADD CONSTRAINT %I %s', $2::text, c.table_name, c.name,
        CASE WHEN c.referred IS NOT NULL
                  AND starts_with(c.definition, c.head || format('%I.%I', $1::text, c.referred) || '(')
             THEN c.head || format('%I.%I', $2::text, c.referred)
                  || substr(c.definition, length(c.head || format('%I.%I', $1::text, c.referred)) + 1)
             ELSE c.definition END
    ) AS statement
    FROM constraints c
    UNION ALL
    SELECT 20, format('index %I', i.name),
           i.head || format('%I.%I', $2::text, i.table_name) || substr(i.definition, length(i.head || i.place) + 1)
    FROM indexes i
    WHERE starts_with(i.definition, i.head || i.place || ' USING ')
    UNION ALL
    SELECT 40, format('settings of %I', o.name),
           format('ALTER TABLE %I.%I SET (%s)', $2::text, o.name, array_to_string(o.reloptions, ', '))
    FROM ours o
    WHERE o.other IS NOT NULL AND o.reloptions IS NOT NULL AND o.reloptions IS DISTINCT FROM o.other_options
    UNION ALL
    SELECT 50, format('comment of %I', o.name),
           format('COMMENT ON TABLE %I.%I IS %L', $2::text, o.name, d.description)
    FROM ours o
    JOIN pg_description d ON d.classoid = 'pg_class'::regclass AND d.objoid = o.oid AND d.objsubid = 0
    WHERE o.other IS NOT NULL AND d.description IS DISTINCT FROM obj_description(o.other, 'pg_class')
    UNION ALL
    SELECT 51, format('comment of %I.%I', o.name, a.attname),
           format('COMMENT ON COLUMN %I.%I.%I IS %L', $2::text, o.name, a.attname, d.description)
    FROM ours o
    JOIN pg_description d ON d.classoid = 'pg_class'::regclass AND d.objoid = o.oid AND d.objsubid > 0
    JOIN pg_attribute a ON a.attrelid = o.oid AND a.attnum = d.objsubid
    JOIN pg_attribute b ON b.attrelid = o.other AND b.attname = a.attname AND NOT b.attisdropped
    WHERE d.description IS DISTINCT FROM col_description(o.other, b.attnum)
    UNION ALL
    SELECT 52, 'comment of the schema', format('COMMENT ON SCHEMA %I IS %L', $2::text, d.description)
    FROM place p
    JOIN pg_description d ON d.classoid = 'pg_namespace'::regclass AND d.objoid = p.live
    WHERE p.renamed AND d.description IS DISTINCT FROM obj_description(p.other, 'pg_namespace')
) parts
ORDER BY step, object

-- name: unknown_indexes
-- Indexes whose definition does not begin as expected, so that it cannot be made for another table.
WITH @{places}
SELECT format('index ''%s'' of table ''%s'' cannot be made again', i.relname, o.name) AS problem
FROM ours o
JOIN pg_index x ON x.indrelid = o.oid AND x.indisvalid
JOIN pg_class i ON i.oid = x.indexrelid
WHERE NOT starts_with(pg_get_indexdef(i.oid), format(
      'CREATE %sINDEX %I ON %I.%I USING ', CASE WHEN x.indisunique THEN 'UNIQUE ' ELSE '' END, i.relname,
      $1::text, o.name
  ))
ORDER BY 1

-- name: never_analyzed
-- Tables of the other schema of which the planner knows nothing, although they have rows.
WITH @{places}
SELECT format('%I.%I', $2::text, o.name) AS name
FROM ours o JOIN pg_class c ON c.oid = o.other
WHERE c.reltuples < 0
ORDER BY 1

-- name: carried
-- What comes along when the schemas are swapped, in order, as statements that are right after the renaming: they
-- are read before it, and name the live schema, which is the other one then.
WITH @{places}
SELECT object, statement FROM (
    SELECT 10 AS step, format('%s %I.%I', lower(o.kind), $1::text, o.name) AS object,
           format('ALTER %s %I.%I SET SCHEMA %I', o.kind, $2::text, o.name, $1::text) AS statement
    FROM others o
    UNION ALL
    SELECT 20, format('%s %I.%I', lower(t.kind), $1::text, t.name),
           format('ALTER %s %I.%I SET SCHEMA %I', t.kind, $2::text, t.name, $1::text)
    FROM types t
    UNION ALL
    SELECT 30, format('function %I.%I', $1::text, f.name),
           format('ALTER ROUTINE %I.%I(%s) SET SCHEMA %I', $2::text, f.name, f.arguments, $1::text)
    FROM routines f
    UNION ALL
    SELECT 40, format('view %I.%I', v.schema, v.name), format(
        'CREATE OR REPLACE VIEW %I.%I%s AS %s', v.schema, v.name,
        coalesce(' WITH (' || array_to_string(v.reloptions, ', ') || ')', ''), pg_get_viewdef(v.oid)
    )
    FROM views v
    UNION ALL
    SELECT 50 + s.step, format('trigger %I of %I', t.name, t.table_name), s.statement
    FROM triggers t
    CROSS JOIN LATERAL (
        VALUES (0, format('DROP TRIGGER %I ON %I.%I', t.name, $2::text, t.table_name)),
               (1, pg_get_triggerdef(t.oid)),
               (2, format(
                   'ALTER TABLE %I.%I %s TRIGGER %I', $1::text, t.table_name,
                   CASE t.enabled WHEN 'D' THEN 'DISABLE' WHEN 'R' THEN 'ENABLE REPLICA' WHEN 'A' THEN 'ENABLE ALWAYS' END,
                   t.name
               ))
    ) AS s (step, statement)
    WHERE s.step < 2 OR t.enabled <> 'O'
    UNION ALL
    SELECT 60, format('policy %I of %I', p.polname, o.name),
           format('DROP POLICY %I ON %I.%I', p.polname, $2::text, o.name)
    FROM ours o JOIN pg_policy p ON p.polrelid = o.oid
    UNION ALL
    SELECT 61, format('policy %I of %I', p.polname, o.name), format(
        'CREATE POLICY %I ON %I.%I AS %s FOR %s TO %s%s%s', p.polname, $1::text, o.name,
        CASE WHEN p.polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END,
        CASE p.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE' WHEN 'd' THEN 'DELETE'
                      ELSE 'ALL' END,
        (SELECT string_agg(CASE r WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(r)) END, ', ')
         FROM unnest(p.polroles) AS r),
        coalesce(' USING (' || pg_get_expr(p.polqual, p.polrelid) || ')', ''),
        coalesce(' WITH CHECK (' || pg_get_expr(p.polwithcheck, p.polrelid) || ')', '')
    )
    FROM ours o JOIN pg_policy p ON p.polrelid = o.oid
    UNION ALL
    SELECT 62, format('row security of %I', o.name), format(
        'ALTER TABLE %I.%I %s ROW LEVEL SECURITY, %s ROW LEVEL SECURITY', s.schema, o.name,
        CASE WHEN s.secured THEN 'ENABLE' ELSE 'DISABLE' END, CASE WHEN s.forced THEN 'FORCE' ELSE 'NO FORCE' END
    )
    FROM ours o
    CROSS JOIN LATERAL (
        VALUES ($1::text, o.secured, o.forced), ($2::text, o.other_secured, o.other_forced)
    ) AS s (schema, secured, forced)
    WHERE o.other IS NOT NULL AND (o.secured, o.forced) IS DISTINCT FROM (o.other_secured, o.other_forced)
    UNION ALL
    SELECT 70 + s.step, format('statistics %I', x.stxname), s.statement
    FROM ours o
    CROSS JOIN place p
    JOIN pg_statistic_ext x ON x.stxrelid = o.oid
    JOIN pg_namespace n ON n.oid = x.stxnamespace
    CROSS JOIN LATERAL (
        SELECT 0 AS step, format('DROP STATISTICS %I.%I', n.nspname, x.stxname) AS statement
        WHERE n.oid <> p.live OR NOT p.renamed
        UNION ALL
        SELECT 1, pg_get_statisticsobjdef(x.oid)
    ) s
    WHERE NOT EXISTS (
        SELECT FROM pg_statistic_ext b
        WHERE p.renamed AND n.oid = p.live AND b.stxnamespace = p.other AND b.stxname = x.stxname
    )
    UNION ALL
    -- A sequence is in the schema of the table whose column owns it, and has its owner.
    SELECT 75 + s.step, format('sequence %I.%I', $1::text, q.name), s.statement
    FROM sequences q
    CROSS JOIN LATERAL (
        VALUES (0, format('ALTER SEQUENCE %I.%I OWNED BY NONE', $2::text, q.name)),
               (1, format('ALTER SEQUENCE %I.%I SET SCHEMA %I', $2::text, q.name, $1::text)),
               (2, format('ALTER SEQUENCE %I.%I OWNER TO %I', $1::text, q.name, pg_get_userbyid(q.table_owner))),
               (3, format('ALTER SEQUENCE %I.%I OWNED BY %I.%I.%I', $1::text, q.name, $1::text, q.table_name, q.column_name))
    ) AS s (step, statement)
    WHERE q.handed_on AND q.table_owner IS NOT NULL AND (s.step <> 2 OR q.owner <> q.table_owner)
    UNION ALL
    SELECT 80, format('foreign key %I of %I.%I', k.name, k.schema, k.table_name), format(
        'ALTER TABLE %I.%I DROP CONSTRAINT %I, ADD CONSTRAINT %I %s%s', k.schema, k.table_name, k.name, k.name,
        pg_get_constraintdef(k.oid), CASE WHEN k.valid THEN ' NOT VALID' ELSE '' END
    )
    FROM keys k
    UNION ALL
    SELECT 90, format('default privileges in %I', $1::text), format(
        'ALTER DEFAULT PRIVILEGES FOR ROLE %I IN SCHEMA %I GRANT %s ON %s TO %s%s',
        pg_get_userbyid(d.defaclrole), $1::text, a.privilege_type,
        CASE d.defaclobjtype WHEN 'r' THEN 'TABLES' WHEN 'S' THEN 'SEQUENCES' WHEN 'f' THEN 'FUNCTIONS'
                             ELSE 'TYPES' END,
        CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END,
        CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END
    )
    FROM place p JOIN pg_default_acl d ON d.defaclnamespace = p.live AND p.renamed, aclexplode(d.defaclacl) a
) carried
ORDER BY step, object

-- name: locked
-- What takes the locks of a swap, in the order in which readers take theirs: a view before what it reads. A reader
-- that waits for a table has locked the views already, and would wait for the swap while that waits for the reader.
WITH RECURSIVE @{places}, nested (oid, level) AS (
    SELECT oid, 0 FROM views
    UNION
    SELECT r.ev_class, n.level + 1
    FROM nested n
    JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = n.oid
        AND d.classid = 'pg_rewrite'::regclass AND d.deptype = 'n'
    JOIN pg_rewrite r ON r.oid = d.objid AND r.ev_class <> n.oid
)
SELECT object, statement FROM (
    -- To give a view the owner that it has changes nothing, and locks it, but not what it reads.
    SELECT -(SELECT max(n.level) FROM nested n WHERE n.oid = v.oid) AS step,
           format('view %I.%I', v.schema, v.name) AS object,
           format('ALTER VIEW %I.%I OWNER TO %I', v.schema, v.name, pg_get_userbyid(v.owner)) AS statement
    FROM views v
    UNION ALL
    SELECT 1, format('table %I.%I', l.schema, l.name),
           format('LOCK TABLE %I.%I IN ACCESS EXCLUSIVE MODE', l.schema, l.name)
    FROM (
        SELECT $1::text AS schema, o.name
        FROM ours o
        CROSS JOIN place p
        WHERE o.other IS NOT NULL AND (
            NOT p.renamed
            OR EXISTS (SELECT FROM pg_policy q WHERE q.polrelid = o.oid)
            OR EXISTS (SELECT FROM pg_constraint k JOIN keys f ON f.oid = k.oid WHERE k.confrelid = o.oid)
            OR EXISTS (SELECT FROM triggers t WHERE t.table_oid = o.oid)
            OR (o.secured, o.forced) IS DISTINCT FROM (o.other_secured, o.other_forced)
        )
        UNION
        SELECT schema, table_name FROM keys
    ) l
) locks
ORDER BY step, object

-- name: moved
-- How the tables of a schema that is not renamed change places with those of the other one.
WITH @{places}, pairs AS (
    SELECT 'TABLE' AS kind, quote_ident(name) AS name FROM ours WHERE other IS NOT NULL
    UNION ALL
    SELECT 'SEQUENCE', quote_ident(c.relname)
    FROM place p
    JOIN pg_class c ON c.relnamespace = p.live AND c.relkind = 'S'
    JOIN pg_class o ON o.relnamespace = p.other AND o.relkind = 'S' AND o.relname = c.relname
    WHERE NOT EXISTS (
        SELECT FROM pg_depend d
        WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.refclassid = 'pg_class'::regclass
          AND d.refobjsubid > 0 AND d.deptype IN ('a', 'i')
    )
    UNION ALL
    SELECT 'ROUTINE', format('%I(%s)', f.proname, pg_get_function_identity_arguments(f.oid))
    FROM place p
    JOIN pg_proc f ON f.pronamespace = p.live
    JOIN pg_proc o ON o.pronamespace = p.other AND o.proname = f.proname AND o.proargtypes = f.proargtypes
)
SELECT object, statement FROM (
    VALUES (1, 'a schema between', 'CREATE SCHEMA syncline_promotion'),
           (9, 'the schema between', 'DROP SCHEMA syncline_promotion')
    UNION ALL
    SELECT s.step, format('%s %s', lower(kind), name),
           format('ALTER %s %I.%s SET SCHEMA %I', kind, s.place, name, s.next)
    FROM pairs
    CROSS JOIN LATERAL (
        VALUES (2, $1::text, 'syncline_promotion'), (3, $2::text, $1::text), (4, 'syncline_promotion', $2::text)
    ) AS s (step, place, next)
) moves (step, object, statement)
ORDER BY step, object

-- name: surplus
-- Rights on the other schema's tables, which a default may have given: what the live ones grant is granted next.
WITH @{places}
SELECT DISTINCT format(
    'REVOKE ALL ON %I.%I FROM %s', $2::text, o.name,
    CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END
) AS statement
FROM ours o JOIN pg_class c ON c.oid = o.other, aclexplode(c.relacl) a
WHERE a.grantee <> c.relowner
ORDER BY 1

-- name: unvalidated
-- Foreign keys of others that were made again and whose rows are not checked yet.
WITH @{places}
SELECT format('foreign key %I of %I.%I', k.name, k.schema, k.table_name) AS object,
       format('ALTER TABLE %I.%I VALIDATE CONSTRAINT %I', k.schema, k.table_name, k.name) AS statement
FROM keys k
WHERE NOT k.valid
ORDER BY 1

-- name: left
-- What others have in the schema, or bound to its tables, by name.
WITH @{places}
SELECT format('%s %I.%I', lower(kind), $1::text, name) AS problem FROM others
UNION SELECT format('%s %I.%I', lower(kind), $1::text, name) FROM types
UNION SELECT format('function %I.%I', $1::text, name) FROM routines
UNION SELECT format('view %I.%I', schema, name) FROM views
UNION SELECT format('foreign key %I of %I.%I', name, schema, table_name) FROM keys
ORDER BY 1

-- name: live_rows
-- How many rows the tables of the map have, by the statistics of the server.
WITH @{places}
SELECT coalesce(sum(pg_stat_get_live_tuples(o.oid)), 0)::bigint AS live,
       coalesce(sum(pg_stat_get_live_tuples(o.other)), 0)::bigint AS other
FROM ours o
WHERE o.name = ANY ($3::text[])
