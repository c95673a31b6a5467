-- Only the types of these columns: a database has a type for each of its tables. One of the schema itself is spelled without it.
WITH RECURSIVE found AS MATERIALIZED (
    SELECT * FROM pg_attribute WHERE attrelid = ANY ($1::oid[]) AND attnum > 0 AND NOT attisdropped
), bases AS (
    SELECT atttypid AS type, atttypid AS base FROM found GROUP BY atttypid
    UNION ALL
    SELECT b.type, d.typbasetype FROM bases b JOIN pg_type d ON d.oid = b.base WHERE d.typtype = 'd'
)
SELECT a.attrelid AS relation, a.attname AS name, CASE WHEN n.nspname = $2 THEN substr(format_type(t.oid, NULL), length(quote_ident($2)) + 2)
           ELSE format_type(t.oid, NULL) END AS type, t.typtype = 'e' AS enum,
       a.attnotnull AS not_null,
       pg_get_expr(d.adbin, d.adrelid) AS default,
       a.atthasdef OR a.attidentity <> '' OR a.attgenerated <> '' AS filled
FROM found a
JOIN bases b ON b.type = a.atttypid
JOIN pg_type t ON t.oid = b.base AND t.typtype <> 'd'
JOIN pg_namespace n ON n.oid = t.typnamespace
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
ORDER BY a.attrelid, a.attnum
