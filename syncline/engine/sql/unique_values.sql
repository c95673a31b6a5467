-- Unique values that rows of a batch pass to each other.

-- name: unique_columns
-- The columns of a table, and a temporary value for each. `refers`, `referenced`: by a foreign key.
SELECT a.attname::text AS name, format_type(a.atttypid, a.atttypmod) AS type,
       b.typcategory::text AS category, b.typname::text AS base,
       greatest(CASE WHEN t.typtype = 'd' THEN t.typtypmod ELSE a.atttypmod END - 4, -1) AS length,
       a.attnotnull OR t.typnotnull AS required,
       a.attidentity = 'a' AS fixed,
       CASE WHEN a.attgenerated <> '' THEN pg_get_expr(d.adbin, d.adrelid) END AS generation,
       EXISTS (
           SELECT FROM pg_constraint f
           WHERE f.contype = 'f' AND f.conrelid = a.attrelid AND a.attnum = ANY (f.conkey)
       ) AS refers,
       EXISTS (
           SELECT FROM pg_constraint f
           WHERE f.contype = 'f' AND f.confrelid = a.attrelid AND a.attnum = ANY (f.confkey)
       ) AS referenced
FROM pg_attribute a
JOIN pg_type t ON t.oid = a.atttypid
JOIN pg_type b ON b.oid = CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = $1::text::regclass AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum

-- name: unique_rules
-- The unique indexes and exclusion constraints of a table besides its primary key: what they compare, with
-- which operators, for which rows, and on which columns.
SELECT c.relname::text AS name,
       coalesce(con.contype = 'x', false) AS exclusion,
       coalesce((to_jsonb(i) ->> 'indnullsnotdistinct')::boolean, false) AS nulls_equal,
       pg_get_expr(i.indpred, i.indrelid) AS predicate,
       ARRAY(
           SELECT pg_get_indexdef(i.indexrelid, k, false) FROM generate_series(1, i.indnkeyatts::int) k ORDER BY k
       ) AS expressions,
       ARRAY(
           SELECT format('OPERATOR(%I.%s)', n.nspname, o.oprname)
           FROM generate_series(1, i.indnkeyatts::int) k
           JOIN pg_opclass oc ON oc.oid = i.indclass[k - 1]
           JOIN pg_operator o ON o.oid = coalesce(con.conexclop[k], (
               SELECT a.amopopr FROM pg_amop a
               WHERE a.amopfamily = oc.opcfamily AND a.amopmethod = oc.opcmethod AND a.amopstrategy = 3
                 AND a.amoplefttype = oc.opcintype AND a.amoprighttype = oc.opcintype
           ))
           JOIN pg_namespace n ON n.oid = o.oprnamespace
           ORDER BY k
       ) AS operators,
       ARRAY(
           SELECT coalesce((
               SELECT format(' COLLATE %I.%I', n.nspname, l.collname)
               FROM pg_collation l JOIN pg_namespace n ON n.oid = l.collnamespace
               WHERE l.oid = i.indcollation[k - 1]
           ), '')
           FROM generate_series(1, i.indnkeyatts::int) k ORDER BY k
       ) AS collations,
       ARRAY(
           WITH used AS (
               SELECT k::int AS attnum FROM unnest(i.indkey::int2[]) k WHERE k > 0
               UNION
               SELECT d.refobjsubid FROM pg_depend d
               WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = i.indrelid AND d.refobjsubid > 0
                 AND (d.classid, d.objid) IN (
                     ('pg_class'::regclass, i.indexrelid), ('pg_constraint'::regclass, con.oid)
                 )
           ), beneath AS (
               -- What a generated column is made of.
               SELECT d.refobjsubid AS attnum
               FROM used u JOIN pg_attrdef a ON a.adrelid = i.indrelid AND a.adnum = u.attnum
               JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = i.indrelid
                AND (d.classid = 'pg_attrdef'::regclass AND d.objid = a.oid
                     OR d.classid = 'pg_class'::regclass AND d.objid = i.indrelid AND d.objsubid = u.attnum)
               WHERE d.refobjsubid > 0
           )
           SELECT a.attname::text
           FROM (SELECT attnum FROM used UNION SELECT attnum FROM beneath) u
           JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = u.attnum
           ORDER BY a.attnum DESC
       ) AS columns
FROM pg_index i
JOIN pg_class c ON c.oid = i.indexrelid
LEFT JOIN pg_constraint con ON con.conindid = i.indexrelid AND con.conrelid = i.indrelid AND con.contype IN ('u', 'x')
WHERE i.indrelid = $1::text::regclass AND NOT i.indisprimary AND (i.indisunique OR i.indisexclusion) AND i.indisready
ORDER BY c.relname

-- name: claims_create
-- What the staged rows will be in the target, as its unique rules see them.
CREATE TEMP TABLE sync_claim ON COMMIT DROP AS
SELECT @{claims}, false AS sync_leaves
FROM (
    SELECT p.*@{generated}
    FROM (
        SELECT s.ctid AS sync_tid, @{proposed}
        FROM @{stage} s LEFT JOIN @{target} t ON @{here}
        WHERE s.sync_present
    ) p
) p

-- name: claims_touched
-- Counts that include these rows must be recounted: their old values are about to be lost.
WITH held AS (
    SELECT t.* FROM @{target} t JOIN pg_temp.sync_claim c ON @{same} WHERE c.sync_tid = ANY ($1::tid[])
)@{touched}
SELECT count(*) FROM held

-- name: claims_holders
-- The target row that has the value a staged row needs, by its row id.
SELECT w.sync_tid AS tid, @{row_id} AS held_by
FROM @{target} t
JOIN pg_temp.sync_claim w ON w.@{applies} AND @{wanted}
WHERE @{predicate} AND w.sync_tid = ANY ($1::tid[]) AND NOT (@{same_wants})

-- name: claims_held
-- Which staged row needs a value that another staged row has in the target, and gives up.
SELECT w.sync_tid AS wants, h.sync_tid AS held
FROM @{target} t
JOIN pg_temp.sync_claim w ON w.@{applies} AND @{wanted}
JOIN pg_temp.sync_claim h ON @{same_held}
WHERE @{predicate} AND w.sync_tid <> h.sync_tid AND (h.@{applies} AND @{kept}) IS NOT TRUE

-- name: claims_leave
UPDATE pg_temp.sync_claim SET sync_leaves = sync_tid = ANY ($1::tid[]) WHERE sync_leaves OR sync_tid = ANY ($1::tid[])

-- name: claims_free
-- The values of these rows are free from here on: each has one that no row needs until it is merged.
UPDATE @{target} t SET @{column} = @{value}
FROM (SELECT c.*, row_number() OVER () AS sync_n FROM pg_temp.sync_claim c WHERE c.sync_tid = ANY ($1::tid[])) c
WHERE @{same}

-- name: claims_replace
-- Rows that cannot take a temporary value are deleted and inserted in one statement: a deleted row conflicts
-- with none, and foreign keys without an action are checked only at its end.
WITH gone AS MATERIALIZED (
    DELETE FROM @{target} t USING pg_temp.sync_claim c
    WHERE c.sync_leaves AND @{same}
    RETURNING t.*
), changed AS (
    INSERT INTO @{target} AS t (@{columns}) OVERRIDING SYSTEM VALUE
    SELECT @{values} FROM @{stage} s JOIN gone g ON @{same_gone}
    JOIN pg_temp.sync_claim c ON c.sync_tid = s.ctid AND c.sync_leaves
    WHERE (SELECT count(*) FROM gone) > 0
    RETURNING @{returned}
)@{queue}@{touched}
SELECT count(*) FROM changed

-- name: retry_held
-- Rows rejected for a unique value that a staged row had are requested again, and those that wait for them:
-- nearest first, so that rows read together belong together.
WITH RECURSIVE freed AS (
    SELECT d.row_id, d.key FROM sync_dead_letter d JOIN @{stage} s ON d.held_by = @{row_id}
    WHERE d.table_name = '@{table}' AND s.sync_present
    UNION
    SELECT d.row_id, d.key FROM freed f JOIN sync_dead_letter d ON d.held_by = f.row_id AND d.table_name = '@{table}'
)
INSERT INTO sync_requeue (table_name, row_id, key, reason, queued_at)
SELECT '@{table}', row_id, key, 'a value it wants changed hands',
       clock_timestamp() + row_number() OVER () * interval '1 microsecond'
FROM freed
ON CONFLICT DO NOTHING

-- name: retry_ring
-- Rows that pass unique values to each other may be rejected in several batches, each for lack of the others.
-- A row rejected now and the rejected rows of its cycle are requested together.
WITH RECURSIVE ring AS (
    SELECT row_id, key, held_by FROM sync_dead_letter
    WHERE table_name = $1 AND row_id = ANY ($2::uuid[]) AND held_by IS NOT NULL
    UNION
    SELECT d.row_id, d.key, d.held_by
    FROM ring r JOIN sync_dead_letter d
      ON d.table_name = $1 AND d.held_by IS NOT NULL AND (d.held_by = r.row_id OR d.row_id = r.held_by)
)
INSERT INTO sync_requeue (table_name, row_id, key, reason, queued_at)
SELECT $1, row_id, key, 'a value it wants changed hands',
       clock_timestamp() + row_number() OVER () * interval '1 microsecond'
FROM ring
WHERE EXISTS (SELECT FROM ring WHERE row_id <> ALL ($2::uuid[]))
ON CONFLICT DO NOTHING
