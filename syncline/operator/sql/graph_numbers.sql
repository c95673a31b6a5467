-- The numbers of one graph: what waits, what was refused, and why.

-- name: graph_has_numbers
SELECT to_regclass($1 || '.sync_count') IS NOT NULL

-- name: graph_numbers
-- Counts are those that triggers keep; each example is one entry of an index: the same cost however many wait.
SELECT (SELECT coalesce(sum(entries), 0)::bigint FROM @{schema}.sync_count WHERE counted = 'sync_dead_letter') AS refused_rows,
       (
           SELECT d.table_name || ', SQLSTATE ' || d.sqlstate || coalesce(', ' || d.constraint_name, '')
           FROM @{schema}.sync_dead_letter d ORDER BY d.table_name, d.row_id LIMIT 1
       ) AS refused_example,
       (
           SELECT next_retry_at FROM @{schema}.sync_dead_letter
           WHERE next_retry_at IS NOT NULL ORDER BY next_retry_at LIMIT 1
       ) AS retry_at,
       (
           SELECT coalesce(sum(entries), 0)::bigint FROM @{schema}.sync_count WHERE counted = 'sync_outbox' AND refused
       ) AS refused_points,
       (
           SELECT o.error
           FROM @{schema}.sync_count k
           CROSS JOIN LATERAL (
               SELECT left(p.error, 300) AS error FROM @{schema}.sync_outbox p
               WHERE p.collection = k.name AND p.error IS NOT NULL ORDER BY p.next_retry_at LIMIT 1
           ) o
           WHERE k.counted = 'sync_outbox' AND k.refused AND k.entries > 0 ORDER BY k.name LIMIT 1
       ) AS refused_points_example,
       (
           SELECT coalesce(sum(entries), 0)::bigint FROM @{schema}.sync_count
           WHERE counted IN ('sync_parked_row', 'sync_parked_reference')
       ) AS parked,
       (
           SELECT coalesce(sum(entries), 0)::bigint FROM @{schema}.sync_count
           WHERE counted = 'sync_outbox' AND NOT refused
       ) AS pending_points,
       (
           SELECT coalesce(json_agg(v), '[]')::text
           FROM (
               SELECT collection, since, next_retry_at, left(error, 500) AS error
               FROM @{schema}.sync_vector_delay ORDER BY collection LIMIT 10
           ) v
       ) AS delays,
       ARRAY(
           SELECT e.collection FROM @{schema}.sync_vector_embedding e
           WHERE e.collection NOT LIKE '%@@second' AND (
               SELECT v.point_id FROM @{schema}.sync_vector v
               WHERE v.collection = e.collection ORDER BY v.point_id LIMIT 1
           ) IS NOT NULL
           ORDER BY e.collection
       ) AS collections,
       s.behind_since, coalesce(extract(epoch FROM clock_timestamp() - s.behind_since), 0)::float8 AS behind_seconds,
       to_jsonb(s) ->> 'load_below' IS NOT NULL AS owing, w.rows AS withheld, w.tables AS withheld_tables
FROM @{schema}.sync_state s CROSS JOIN (@{withheld}) AS w

-- name: graph_owes
SELECT count(*) FILTER (WHERE kind <> 'counts') AS owed,
       (
           SELECT o.name || ': ' || o.problem FROM @{schema}.sync_owed o WHERE o.problem IS NOT NULL ORDER BY o.number LIMIT 1
       ) AS problem
FROM @{schema}.sync_owed

-- name: withheld
SELECT sum((to_jsonb(c) ->> 'withheld')::bigint)::bigint AS rows, string_agg(c.table_name, ', ' ORDER BY c.table_name) AS tables
FROM @{schema}.sync_comparison c WHERE to_jsonb(c) ->> 'withheld' IS NOT NULL

-- name: bookkeeping_kept
-- Those of the schemas $1 whose table $2 this role may read: bookkeeping of an earlier release may lack it.
SELECT n.nspname::text AS schema
FROM pg_namespace n
JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = $2
WHERE n.nspname = ANY ($1::text[]) AND has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')
ORDER BY 1

-- name: withheld_any
SELECT '@{name}' AS schema, w.rows, w.tables FROM (@{withheld}) AS w WHERE w.rows IS NOT NULL

-- name: owed_any
SELECT '@{name}' AS schema WHERE EXISTS (SELECT FROM @{schema}.sync_owed)

-- name: write_horizon
-- The oldest open writing transaction, which committed rows of later ones wait for.
SELECT @{horizon}::text::bigint AS horizon, pg_is_in_recovery() AS standby, w.age,
       CASE WHEN w.gid IS NULL THEN 'pid ' || w.pid || coalesce(', application ' || nullif(w.application_name, ''), '')
           ELSE w.application_name END || ' of database ' || w.database AS name
FROM (SELECT) AS one LEFT JOIN (@{oldest_writer}) AS w ON true
