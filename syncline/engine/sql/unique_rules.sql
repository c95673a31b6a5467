-- The unique indexes and exclusion constraints of a table beside its primary key: what they compare, by which operators,
-- for which rows, and the columns that they are about.
SELECT c.relname::text AS name,
       coalesce(con.contype = 'x', false) AS exclusion,
       coalesce((to_jsonb(i) ->> 'indnullsnotdistinct')::boolean, false) AS nulls_equal,
       pg_get_expr(i.indpred, i.indrelid) AS predicate,
       ARRAY(
           SELECT pg_get_indexdef(i.indexrelid, k, false) FROM generate_series(1, i.indnkeyatts::int) k ORDER BY k
       ) AS expressions,
       ARRAY(
           SELECT format('OPERATOR(%I.%s)', n.nspname, o.oprname)
           FROM generate_series(1, i.indnkeyatts::int) k
           JOIN pg_opclass oc ON oc.oid = i.indclass[k - 1]
           JOIN pg_operator o ON o.oid = coalesce(con.conexclop[k], (
               SELECT a.amopopr FROM pg_amop a
               WHERE a.amopfamily = oc.opcfamily AND a.amopmethod = oc.opcmethod AND a.amopstrategy = 3
                 AND a.amoplefttype = oc.opcintype AND a.amoprighttype = oc.opcintype
           ))
           JOIN pg_namespace n ON n.oid = o.oprnamespace
           ORDER BY k
       ) AS operators,
       ARRAY(
           SELECT coalesce((
               SELECT format(' COLLATE %I.%I', n.nspname, l.collname)
               FROM pg_collation l JOIN pg_namespace n ON n.oid = l.collnamespace
               WHERE l.oid = i.indcollation[k - 1]
           ), '')
           FROM generate_series(1, i.indnkeyatts::int) k ORDER BY k
       ) AS collations,
       ARRAY(
           WITH used AS (
               SELECT k::int AS attnum FROM unnest(i.indkey::int2[]) k WHERE k > 0
               UNION
               SELECT d.refobjsubid FROM pg_depend d
               WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = i.indrelid AND d.refobjsubid > 0
                 AND (d.classid, d.objid) IN (
                     ('pg_class'::regclass, i.indexrelid), ('pg_constraint'::regclass, con.oid)
                 )
           ), beneath AS (
               -- What a generated column is made of.
               SELECT d.refobjsubid AS attnum
               FROM used u JOIN pg_attrdef a ON a.adrelid = i.indrelid AND a.adnum = u.attnum
               JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = i.indrelid
                AND (d.classid = 'pg_attrdef'::regclass AND d.objid = a.oid
                     OR d.classid = 'pg_class'::regclass AND d.objid = i.indrelid AND d.objsubid = u.attnum)
               WHERE d.refobjsubid > 0
           )
           SELECT a.attname::text
           FROM (SELECT attnum FROM used UNION SELECT attnum FROM beneath) u
           JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = u.attnum
           ORDER BY a.attnum DESC
       ) AS columns
FROM pg_index i
JOIN pg_class c ON c.oid = i.indexrelid
LEFT JOIN pg_constraint con ON con.conindid = i.indexrelid AND con.conrelid = i.indrelid AND con.contype IN ('u', 'x')
WHERE i.indrelid = $1::text::regclass AND NOT i.indisprimary AND (i.indisunique OR i.indisexclusion) AND i.indisready
ORDER BY c.relname
