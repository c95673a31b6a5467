WITH RECURSIVE bases AS (
    SELECT oid AS type, oid AS base FROM pg_type WHERE typtype <> 'd'
    UNION ALL
    SELECT d.oid, b.base FROM pg_type d JOIN bases b ON b.type = d.typbasetype WHERE d.typtype = 'd'
)
SELECT a.attrelid AS relation, a.attname AS name, format_type(t.oid, NULL) AS type, t.typtype = 'e' AS enum,
       a.attnotnull AS not_null,
       pg_get_expr(d.adbin, d.adrelid) AS default,
       a.atthasdef OR a.attidentity <> '' OR a.attgenerated <> '' AS filled
FROM pg_attribute a
JOIN bases b ON b.type = a.atttypid
JOIN pg_type t ON t.oid = b.base
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = ANY ($1::oid[]) AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attrelid, a.attnum
