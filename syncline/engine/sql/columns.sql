-- The columns that are known of both sides of each table.

-- name: columns_known
SELECT table_name, columns::text AS columns FROM @{schema}.sync_mapped WHERE columns IS NOT NULL

-- name: columns_seen
UPDATE sync_mapped m SET columns = u.columns::jsonb
FROM unnest($1::text[], $2::text[]) AS u (name, columns)
WHERE m.table_name = u.name
