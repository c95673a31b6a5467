-- `plain`: what the engine's keyset order and ON CONFLICT can use.
SELECT i.indrelid AS relation, c.relname AS name, i.indisvalid AND i.indisready AS valid,
       i.indisunique AS unique,
       a.amname = 'btree' AND i.indpred IS NULL AND i.indimmediate
           AND bool_and(i.indoption[p.part] = 0 AND o.opcdefault) AS plain,
       array_agg(coalesce(t.attname, '') ORDER BY p.part) AS columns,
       array_agg(l.collname ORDER BY p.part) AS collations
FROM pg_index i
JOIN pg_class c ON c.oid = i.indexrelid
JOIN pg_am a ON a.oid = c.relam
CROSS JOIN LATERAL generate_series(0, i.indnkeyatts - 1) AS p (part)
JOIN pg_opclass o ON o.oid = i.indclass[p.part]
LEFT JOIN pg_collation l ON l.oid = i.indcollation[p.part]
LEFT JOIN pg_attribute t ON t.attrelid = i.indrelid AND t.attnum = i.indkey[p.part] AND t.attnum > 0
WHERE i.indrelid = ANY ($1::oid[])
GROUP BY i.indexrelid, i.indrelid, c.relname, i.indisvalid, i.indisready, i.indisunique, i.indpred,
         i.indimmediate, a.amname
ORDER BY i.indrelid, c.relname
