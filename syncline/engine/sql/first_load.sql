-- A first load: foreign keys and indexes that are put off, and what is owed of them.

-- name: load_tables
-- The tables $1 of the graph's schema, and why they keep their keys and indexes; null: nothing is in the way.
SELECT t.name, CASE
    WHEN c.oid IS NULL THEN 'there is no such table'
    WHEN c.relkind = 'p' OR c.relispartition OR c.relhassubclass THEN 'it is partitioned, or has children'
    WHEN c.relkind <> 'r' THEN 'it is no ordinary table'
    WHEN NOT pg_has_role(c.relowner, 'USAGE') THEN format(
        'role %I does not own it, %I does', current_user, pg_get_userbyid(c.relowner)
    )
    WHEN row_security_active(c.oid) THEN 'row level security may hide rows of it'
END AS kept
FROM unnest($1::text[]) AS t (name)
LEFT JOIN pg_class c ON c.relname = t.name
    AND c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = current_schema())

-- name: load_made
-- Whether Syncline has made each of the tables $1: for a map, or, if these are those of the built-in one, by its revisions.
SELECT t.name
FROM unnest($1::text[]) AS t (name)
WHERE ($2 AND to_regclass('sync_schema_version') IS NOT NULL) OR EXISTS (SELECT FROM sync_made m WHERE m.table_name = t.name)

-- name: load_there
-- Those of the tables $1 that are there, and all of whose rows this role sees.
SELECT t.name FROM (SELECT name, to_regclass(quote_ident(name))::oid AS oid FROM unnest($1::text[]) AS u (name)) AS t
WHERE t.oid IS NOT NULL AND has_table_privilege(t.oid, 'SELECT') AND NOT row_security_active(t.oid)

-- name: load_rows
SELECT '@{name}' AS name WHERE EXISTS (SELECT FROM @{table})

-- name: load_lock
LOCK TABLE @{tables} IN ACCESS EXCLUSIVE MODE

-- name: load_objects
-- What may be put off of the tables $1: the foreign keys of one column by which the map refers ($2: table, column and table
-- referred to), since the engine parks what they would refuse; and the indexes that are no keys and by which no value is looked
-- up ($3: table and column). `fingerprint`: all that the catalogs say of it, but for ids and what changes by itself, such as
-- where an expression stood in its statement. `validate`: what checks the rows that are there; null for a key that did not hold
-- for all of them before.
WITH mine AS (
    SELECT c.oid, c.relname::text AS name
    FROM pg_class c
    WHERE c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = current_schema()) AND c.relname = ANY ($1::text[])
), referring AS (
    SELECT r ->> 0 AS name, r ->> 1 AS column, r ->> 2 AS parent FROM jsonb_array_elements($2::text::jsonb) AS u (r)
), asked AS (
    SELECT r ->> 0 AS name, r ->> 1 AS column FROM jsonb_array_elements($3::text::jsonb) AS u (r)
)
SELECT 'index' AS kind, m.name AS table_name, c.relname::text AS name,
       format('DROP INDEX %I', c.relname) AS leave,
       array_remove(ARRAY[
           pg_get_indexdef(i.indexrelid, 0, true),
           (
               SELECT string_agg(
                   format('ALTER INDEX %I ALTER COLUMN %s SET STATISTICS %s', c.relname, a.attnum, a.attstattarget), '; '
                   ORDER BY a.attnum
               )
               FROM pg_attribute a WHERE a.attrelid = i.indexrelid AND a.attstattarget >= 0
           ),
           CASE WHEN i.indisclustered THEN format('ALTER TABLE %I CLUSTER ON %I', m.name, c.relname) END,
           CASE WHEN d.description IS NOT NULL THEN format('COMMENT ON INDEX %I IS %L', c.relname, d.description) END
       ], NULL) AS statements,
       NULL AS validate,
       jsonb_build_array(
           to_jsonb(i) - '{indexrelid,indcheckxmin,indexprs,indpred}'::text[], c.relowner, c.relam, c.reltablespace, c.reloptions, c.relpersistence,
           pg_get_indexdef(i.indexrelid), d.description,
           ARRAY(
               SELECT jsonb_build_array(a.attname, a.attstattarget, a.attoptions, a.attcollation)
               FROM pg_attribute a WHERE a.attrelid = i.indexrelid ORDER BY a.attnum
           )
       )::text AS fingerprint
FROM mine m
JOIN pg_index i ON i.indrelid = m.oid
JOIN pg_class c ON c.oid = i.indexrelid
LEFT JOIN pg_description d ON d.objoid = c.oid AND d.classoid = 'pg_class'::regclass AND d.objsubid = 0
WHERE NOT (i.indisunique OR i.indisprimary OR i.indisexclusion OR i.indisreplident) AND i.indisvalid AND i.indisready
  AND NOT EXISTS (
      SELECT FROM pg_attribute a JOIN asked l ON l.column = a.attname
      WHERE l.name = m.name AND a.attrelid = m.oid AND a.attnum = ANY (i.indkey::int2[])
  )
UNION ALL
SELECT 'foreign key', m.name, k.conname::text,
       format('ALTER TABLE %I DROP CONSTRAINT %I', m.name, k.conname),
       array_remove(ARRAY[
           format(
               'ALTER TABLE %I ADD CONSTRAINT %I %s%s', m.name, k.conname, pg_get_constraintdef(k.oid),
               CASE WHEN k.convalidated THEN ' NOT VALID' ELSE '' END
           ),
           CASE WHEN d.description IS NOT NULL THEN format('COMMENT ON CONSTRAINT %I ON %I IS %L', k.conname, m.name, d.description) END
       ], NULL),
       CASE WHEN k.convalidated THEN format('ALTER TABLE %I VALIDATE CONSTRAINT %I', m.name, k.conname) END,
       jsonb_build_array(
           to_jsonb(k) - 'oid', pg_get_constraintdef(k.oid), d.description,
           ARRAY(
               SELECT jsonb_build_array(
                   t.tgrelid, t.tgfoid, t.tgtype, t.tgenabled, t.tgdeferrable, t.tginitdeferred, t.tgconstrindid
               )
               FROM pg_trigger t WHERE t.tgconstraint = k.oid ORDER BY t.tgrelid, t.tgfoid
           )
       )::text
FROM mine m
JOIN pg_constraint k ON k.conrelid = m.oid AND k.contype = 'f' AND k.conparentid = 0 AND cardinality(k.conkey) = 1
JOIN pg_attribute a ON a.attrelid = m.oid AND a.attnum = k.conkey[1]
JOIN pg_class p ON p.oid = k.confrelid AND p.relkind = 'r'
    AND p.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = current_schema())
LEFT JOIN pg_description d ON d.objoid = k.oid AND d.classoid = 'pg_constraint'::regclass
WHERE EXISTS (SELECT FROM referring r WHERE r.name = m.name AND r.column = a.attname AND r.parent = p.relname)
  AND coalesce((to_jsonb(k) ->> 'conenforced')::boolean, true)
ORDER BY 1 DESC, 2, 3

-- name: load_owes
INSERT INTO sync_owed (number, kind, table_name, name, statements, validate)
SELECT r.number, r.entry ->> 0, r.entry ->> 1, r.entry ->> 2, ARRAY(SELECT jsonb_array_elements_text(r.entry -> 3)), r.entry ->> 4
FROM jsonb_array_elements($1::text::jsonb) WITH ORDINALITY AS r (entry, number)

-- name: load_begun
UPDATE sync_state SET load_below = $1, load_due_at = now()

-- name: load_over
UPDATE sync_state SET load_below = NULL, load_due_at = NULL
WHERE load_below IS NOT NULL AND NOT EXISTS (SELECT FROM sync_owed)

-- name: owed
-- Whether each is there by now, whoever has put it back: an index that is ready, a key that holds for all rows.
SELECT o.number, o.kind, o.table_name, o.name, o.statements, o.validate, o.there, o.tries, o.problem, c.oid IS NOT NULL AS placed,
       i.indexrelid IS NOT NULL AS indexed, k.oid IS NOT NULL AS keyed,
       coalesce(k.convalidated, false) OR (k.oid IS NOT NULL AND o.validate IS NULL) AS valid
FROM @{schema}sync_owed o
LEFT JOIN pg_class c ON c.relname = o.table_name AND c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = @{name})
LEFT JOIN (pg_index i JOIN pg_class x ON x.oid = i.indexrelid)
    ON o.kind = 'index' AND i.indrelid = c.oid AND x.relname = o.name AND i.indisvalid
LEFT JOIN pg_constraint k ON o.kind = 'foreign key' AND k.conrelid = c.oid AND k.conname = o.name
ORDER BY o.there, o.number

-- name: owed_read
-- Whether every row that the load began with was read, of the tables $1. A write-db that was replaced has other numbers: its
-- next transaction is $2.
SELECT coalesce(bool_and(coalesce(c.xid, 0) >= least(s.load_below, $2::bigint)), true)
FROM unnest($1::text[]) AS t (name) CROSS JOIN sync_state s LEFT JOIN sync_cursor c ON c.table_name = t.name

-- name: owed_counted
-- Counted for up to an id, by whom and by which map ($2), and batches count what they touch. Counts have no statements else.
UPDATE sync_owed SET there = true, problem = NULL, statements = $2 WHERE number = $1

-- name: owed_there
UPDATE sync_owed SET there = true, problem = NULL WHERE number = $1

-- name: owed_paid
WITH paid AS (DELETE FROM sync_owed WHERE number = $1)
UPDATE sync_state SET load_below = NULL, load_due_at = NULL WHERE NOT EXISTS (SELECT FROM sync_owed WHERE number <> $1)

-- name: owed_failed
-- Looked at again after a minute, then after twice as long as before, at most an hour.
WITH failed AS (
    UPDATE sync_owed SET tries = tries + 1, problem = $2 WHERE number = $1 RETURNING tries
)
UPDATE sync_state SET load_due_at = now() + least(interval '1 hour', interval '1 minute' * 2 ^ (f.tries - 1)) FROM failed f

-- name: load_pays
SELECT count(*) FROM (SELECT FROM @{source} LIMIT @{limit}) AS r

-- name: counts_of_none
DELETE FROM @{stats} t WHERE NOT EXISTS (SELECT FROM @{target} p WHERE p.@{id} = t.@{owner})

-- name: load_begins
-- Of the tables $1: what is below transaction $3 is read by the cursors $2, what comes from there on by the tables' own.
WITH own AS (
    INSERT INTO sync_cursor (table_name, xid) SELECT name, $3::bigint FROM unnest($1::text[]) AS u (name)
    ON CONFLICT (table_name) DO UPDATE SET xid = excluded.xid, key = NULL
)
INSERT INTO sync_cursor (table_name, xid, below) SELECT name, 0, $3::bigint FROM unnest($2::text[]) AS u (name)
ON CONFLICT (table_name) DO UPDATE SET xid = excluded.xid, key = NULL, below = excluded.below

-- name: load_ends
DELETE FROM sync_cursor WHERE table_name = $1
