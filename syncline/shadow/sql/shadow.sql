-- A shadow's schema.

-- name: claim
-- A promotion makes it the live graph, whose record of its embedding is of this generation.
UPDATE @{schema}.sync_state
SET vector_prefix = $1, shadow_provider = $2, vector_generation = $3, vector_generations = $3

-- name: model
-- Which generation of collections the live graph has, and whether a second one: its tables may be older.
SELECT coalesce((to_jsonb(s) ->> 'vector_generation')::int, 1) AS generation,
       to_regclass('@{schema}.sync_second') IS NOT NULL AS may_change
FROM @{schema}.sync_state s

-- name: filled
-- The collections that have got points, as the map named them then.
SELECT collection FROM @{schema}.sync_vector_embedding

-- name: second
SELECT EXISTS (SELECT FROM @{schema}.sync_second)

-- name: lock
SELECT pg_advisory_xact_lock(hashtextextended('syncline:' || $1, 0))

-- name: try_lock
-- Take the lock that cycles hold on a schema, until the transaction, or its savepoint, is rolled back or ends.
SELECT pg_try_advisory_xact_lock(hashtextextended('syncline:' || $1, 0))

-- name: scratch
-- The state of the schema with a shadow's name.
SELECT to_regclass(quote_ident($1) || '.sync_state') IS NOT NULL AS made,
       EXISTS (SELECT FROM pg_class WHERE relnamespace = to_regnamespace(quote_ident($1))) AS filled

-- name: state
SELECT vector_prefix, shadow_provider FROM @{schema}.sync_state

-- name: grants
-- The privileges in the live schema, as statements that grant them on the shadow's tables and columns of the
-- same names.
WITH relations AS (
    SELECT c.oid, c.relname AS name, c.relacl AS acl, c.relowner AS owner,
           CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS kind,
           to_regclass(quote_ident($2) || '.' || quote_ident(c.relname)) AS other
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = $1 AND c.relkind IN ('r', 'p', 'v', 'm', 'S')
), live AS (
    SELECT NULL::name AS name, '' AS columns, n.nspacl AS acl, n.nspowner AS owner, 'SCHEMA' AS kind
    FROM pg_namespace n WHERE n.nspname = $1
    UNION ALL
    SELECT name, '', acl, owner, kind FROM relations WHERE other IS NOT NULL
    UNION ALL
    SELECT r.name, format(' (%I)', a.attname), a.attacl, r.owner, r.kind
    FROM relations r
    JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
    JOIN pg_attribute b ON b.attrelid = r.other AND b.attname = a.attname AND NOT b.attisdropped
)
SELECT format(
    'GRANT %s%s ON %s %s TO %s%s',
    a.privilege_type, live.columns, live.kind, quote_ident($2) || coalesce('.' || quote_ident(live.name), ''),
    CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END,
    CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END
) AS statement
FROM live, aclexplode(live.acl) a
WHERE a.grantee <> live.owner
ORDER BY 1

-- name: sizes
-- The planner's estimate of the rows: a promotion may have changed any of them.
SELECT relname AS name, greatest(reltuples, 1)::bigint AS rows
FROM pg_class
WHERE relnamespace = to_regnamespace(quote_ident($1)) AND relkind IN ('r', 'p') AND relname !~ '^sync_'
ORDER BY 1
