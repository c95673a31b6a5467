-- Which tenants have something new, where graphs of several share a schema.

-- name: tenant_columns
-- The captured tables of a schema, each with the column and type by which capture is in the order of tenants; null
-- where it is not: what is written there concerns every graph.
SELECT c.relname AS name, whose.attname AS "column", whose.type
FROM pg_attribute a
JOIN pg_class c ON c.oid = a.attrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN LATERAL (
    SELECT t.attname, format_type(t.atttypid, NULL) AS type
    FROM pg_index i
    JOIN pg_attribute t ON t.attrelid = i.indrelid AND t.attnum = i.indkey[0]
    JOIN pg_attribute s ON s.attrelid = i.indrelid AND s.attnum = i.indkey[1] AND s.attname = 'sync_xid'
    WHERE i.indrelid = c.oid AND i.indisvalid
    LIMIT 1
) AS whose ON true
WHERE a.attname = 'sync_xid' AND NOT a.attisdropped AND c.relkind IN ('r', 'p') AND NOT c.relispartition
  AND n.nspname = $1

-- name: tenant_probe
-- The first row in index order. With EXISTS the planner would scan the table page by page.
(SELECT sync_xid FROM @{table} WHERE @{whose} AND sync_xid >= $1::text::xid8 ORDER BY sync_xid DESC LIMIT 1) IS NOT NULL

-- name: tenants_changed
SELECT u.tenant, @{everyone} AS everyone FROM unnest($2::text[]) AS u (tenant) WHERE @{everyone} OR @{own}
