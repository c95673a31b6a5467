-- `plain`: what the engine's keyset order and ON CONFLICT can use. Each index is looked up by itself: joined all at once, a
-- database of thousands of graphs would be read whole.
WITH found AS MATERIALIZED (SELECT * FROM pg_index WHERE indrelid = ANY ($1::oid[]))
SELECT i.indrelid AS relation, c.relname AS name, i.indisvalid AND i.indisready AS valid,
       i.indisunique AS unique,
       a.amname = 'btree' AND i.indpred IS NULL AND i.indimmediate AND k.plain AS plain,
       k.columns, k.collations
FROM found i
JOIN pg_class c ON c.oid = i.indexrelid
JOIN pg_am a ON a.oid = c.relam
CROSS JOIN LATERAL (
    SELECT bool_and(i.indoption[p.part] = 0 AND o.opcdefault) AS plain,
           array_agg(coalesce(t.attname, '') ORDER BY p.part) AS columns,
           array_agg(l.collname ORDER BY p.part) AS collations
    FROM generate_series(0, i.indnkeyatts - 1) AS p (part)
    JOIN pg_opclass o ON o.oid = i.indclass[p.part]
    LEFT JOIN pg_collation l ON l.oid = i.indcollation[p.part]
    LEFT JOIN pg_attribute t ON t.attrelid = i.indrelid AND t.attnum = i.indkey[p.part] AND t.attnum > 0
) k
ORDER BY i.indrelid, c.relname
