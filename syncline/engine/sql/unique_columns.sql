-- The columns of a table, and what each would take for a while. `refers`, `referenced`: by a foreign key.
SELECT a.attname::text AS name, format_type(a.atttypid, a.atttypmod) AS type,
       b.typcategory::text AS category, b.typname::text AS base,
       greatest(CASE WHEN t.typtype = 'd' THEN t.typtypmod ELSE a.atttypmod END - 4, -1) AS length,
       a.attnotnull OR t.typnotnull AS required,
       a.attidentity = 'a' AS fixed,
       CASE WHEN a.attgenerated <> '' THEN pg_get_expr(d.adbin, d.adrelid) END AS generation,
       EXISTS (
           SELECT FROM pg_constraint f
           WHERE f.contype = 'f' AND f.conrelid = a.attrelid AND a.attnum = ANY (f.conkey)
       ) AS refers,
       EXISTS (
           SELECT FROM pg_constraint f
           WHERE f.contype = 'f' AND f.confrelid = a.attrelid AND a.attnum = ANY (f.confkey)
       ) AS referenced
FROM pg_attribute a
JOIN pg_type t ON t.oid = a.atttypid
JOIN pg_type b ON b.oid = CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = $1::text::regclass AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum
