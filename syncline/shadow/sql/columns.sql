-- The columns of a table that say something of the graph; the others are the engine's.
SELECT a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type
FROM pg_attribute a
WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped AND a.attname !~ '^sync_'
ORDER BY a.attnum
