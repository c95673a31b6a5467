-- Promote a shadow.

-- name: owed
-- Counts kept by triggers: nothing is counted while a promotion holds both schemas.
SELECT coalesce(sum(entries) FILTER (WHERE counted = 'sync_outbox' AND NOT refused), 0)::bigint AS points,
       coalesce(sum(entries) FILTER (WHERE counted = 'sync_dead_letter'), 0)::bigint AS dead,
       coalesce(sum(entries) FILTER (WHERE counted IN ('sync_parked_row', 'sync_parked_reference')), 0)::bigint AS parked
FROM @{schema}.sync_count

-- name: left_behind
-- Objects that would be missing under the live schema's name, and objects elsewhere that are bound to its
-- tables: a view or foreign key follows them into whatever schema they move to, and is lost when that is
-- dropped.
SELECT format('the shadow has no %s ''%s''',
              CASE c.relkind WHEN 'i' THEN 'index' WHEN 'I' THEN 'index' WHEN 'v' THEN 'view'
                             WHEN 'm' THEN 'materialized view' WHEN 'S' THEN 'sequence' ELSE 'table' END,
              c.relname) AS reason
FROM pg_class c
WHERE c.relnamespace = to_regnamespace(quote_ident($1)) AND c.relkind IN ('r', 'p', 'v', 'm', 'i', 'I', 'S', 'f')
    AND to_regclass(quote_ident($2) || '.' || quote_ident(c.relname)) IS NULL
UNION
SELECT format('the shadow has no column ''%s'' of table ''%s''', a.attname, c.relname)
FROM pg_class c
JOIN pg_class s ON s.relnamespace = to_regnamespace(quote_ident($2)) AND s.relname = c.relname
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relnamespace = to_regnamespace(quote_ident($1)) AND c.relkind IN ('r', 'p')
    AND NOT EXISTS (
        SELECT FROM pg_attribute b WHERE b.attrelid = s.oid AND b.attname = a.attname AND NOT b.attisdropped
    )
UNION
SELECT format('view ''%s.%s'' reads the live tables and would read the shadow''s', v.relnamespace::regnamespace, v.relname)
FROM pg_depend d
JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
JOIN pg_class v ON v.oid = r.ev_class
JOIN pg_class c ON d.refclassid = 'pg_class'::regclass AND c.oid = d.refobjid
WHERE c.relnamespace = to_regnamespace(quote_ident($1)) AND v.relnamespace <> c.relnamespace
    AND v.relkind IN ('v', 'm')
UNION
SELECT format('table ''%s.%s'' references the live table ''%s'' (%s) and would reference the shadow''s',
              r.relnamespace::regnamespace, r.relname, c.relname, k.conname)
FROM pg_constraint k
JOIN pg_class r ON r.oid = k.conrelid
JOIN pg_class c ON c.oid = k.confrelid
WHERE k.contype = 'f' AND k.conparentid = 0
    AND c.relnamespace = to_regnamespace(quote_ident($1)) AND r.relnamespace <> c.relnamespace
ORDER BY 1

-- name: rename
-- Swap both schemas by renaming, which locks no table. Prepared statements look names up again.
ALTER SCHEMA @{live} RENAME TO syncline_promotion;
ALTER SCHEMA @{shadow} RENAME TO @{live};
ALTER SCHEMA syncline_promotion RENAME TO @{shadow}

-- name: swap
-- The shadow's bookkeeping is the live graph's now: both store what they belong to, and neither has a fence that
-- an earlier cycle could hold.
UPDATE @{live}.sync_state l
SET fence = greatest(l.fence, s.fence) + 1, vector_prefix = @{live_prefix}, shadow_provider = NULL
FROM @{shadow}.sync_state s;
UPDATE @{shadow}.sync_state s
SET fence = l.fence, vector_prefix = @{shadow_prefix}, shadow_provider = @{shadow_provider}
FROM @{live}.sync_state l;
-- What operators did to the graph manually stays with it.
INSERT INTO @{live}.sync_audit (at, who, action, why, table_name, key, fingerprint, rows, run_id)
SELECT a.at, a.who, a.action, a.why, a.table_name, a.key, a.fingerprint, a.rows, a.run_id
FROM @{shadow}.sync_audit a
WHERE NOT EXISTS (
    SELECT FROM @{live}.sync_audit b WHERE (b.at, b.who, b.action) = (a.at, a.who, a.action)
)
ORDER BY a.at

-- name: promoted
SELECT EXISTS (SELECT FROM @{live}.sync_audit WHERE run_id = $1 AND action = '@{action}')

-- name: audit
INSERT INTO @{live}.sync_audit (who, action, why, rows, run_id) VALUES ($1, $2, $3, 0, $4)

-- name: rows_of_others
-- Whether a table of the live schema has rows that are in no list: somebody else's.
SELECT EXISTS (SELECT FROM @{live} t WHERE NOT @{is_ours})

-- name: marked_only_here
-- Whether the live schema has marked rows of table $1 that the shadow has not.
SELECT EXISTS (
    SELECT FROM @{live}.sync_kept k
    WHERE k.table_name = $1 AND NOT k.stub
      AND NOT EXISTS (
          SELECT FROM @{shadow}.sync_kept s WHERE s.table_name = k.table_name AND s.row_id = k.row_id AND NOT s.stub
      )
)

-- name: marked_here
-- Whether the live schema has marked rows of table $1.
SELECT EXISTS (SELECT FROM @{live}.sync_kept k WHERE k.table_name = $1 AND NOT k.stub)

-- name: want
-- Have the shadow's next cycle make sure that it shows all up to its position, as writers who wait do.
SELECT nextval(to_regclass(@{shadow}))

-- name: granted
-- Whether the shadow shows everything of which writers were told that the live graph shows it.
SELECT s.visible_clean @@> l.visible_clean FROM @{live}.sync_state l, @{shadow}.sync_state s
