-- Settings and types with which both stores write values in the same form.

-- name: settings
-- Both sides write values in the same form, whatever the servers' settings; and a side that waits for the
-- other, or for the vector store, is not ended as idle. Plans are made for the actual parameters.
SELECT set_config('TimeZone', 'UTC', true),
       set_config('DateStyle', 'ISO, MDY', true),
       set_config('IntervalStyle', 'postgres', true),
       set_config('extra_float_digits', '1', true),
       set_config('bytea_output', 'hex', true),
       set_config('lc_monetary', 'C', true),
       set_config('plan_cache_mode', 'force_custom_plan', true),
       set_config('idle_in_transaction_session_timeout', '0', true)

-- name: types
-- The types of values in the graph-db; built-in ones can be requested from the write-db too.
SELECT a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type,
       t.typnamespace = 'pg_catalog'::regnamespace AS builtin
FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
WHERE a.attrelid = to_regclass(quote_ident($1)) AND a.attnum > 0 AND NOT a.attisdropped

-- name: builtin
-- Which types, as a map spells them, are built in. Where only pg_catalog is searched, others are not found.
SELECT DISTINCT spelled
FROM unnest($1::text[]) AS spelled JOIN pg_type t ON t.oid = to_regtype(spelled)
WHERE t.typnamespace = 'pg_catalog'::regnamespace

-- name: filling
-- Tables whose rows are being read again in the background.
SELECT table_name FROM sync_mapped WHERE filling IS NOT NULL
