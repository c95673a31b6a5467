-- Replicate deletes: read deleted keys, remove rows and their dependents, prune tombstones.

-- name: deletes_create
CREATE TEMP TABLE IF NOT EXISTS @{stage} (
    sync_xid bigint NOT NULL, seq bigint NOT NULL, source_table text NOT NULL, key text[] NOT NULL, alive boolean NOT NULL
) ON COMMIT DELETE ROWS

-- name: each_deleted
-- Each deleted key by itself: a statement that deleted many has packed them, up to a thousand in a row (`tombstone_sets`).
-- A key's position is that of its row times 1024, and its place there. The last one's place is 1023, as is that of a key
-- alone, so that a cursor tells whether it is past a row without the row's keys. A row's keys are unpacked once: OFFSET 0.
(
    SELECT p.sync_xid, p.seq AS pack, p.seq * 1024 + k.place AS seq, p.source_table, k.key, p.deleted_at
    FROM (
        SELECT sync_xid, seq, source_table, key, deleted_at, array_length(key, 1) AS keys, array_length(key, 2) AS parts
        FROM @{tombstones} WHERE @{rows} @{bounded}
    ) AS p
    CROSS JOIN LATERAL (
        SELECT 1023 AS place, p.key WHERE p.parts IS NULL
        UNION ALL
        SELECT CASE WHEN u.number < p.keys THEN u.number - 1 ELSE 1023 END, ARRAY[u.part]
        FROM unnest(p.key) WITH ORDINALITY AS u (part, number) WHERE p.parts = 1
        UNION ALL
        SELECT CASE WHEN max(u.number) / p.parts < p.keys THEN max(u.number) / p.parts - 1 ELSE 1023 END,
               array_agg(u.part ORDER BY u.number)
        FROM unnest(p.key) WITH ORDINALITY AS u (part, number) WHERE p.parts > 1 GROUP BY (u.number - 1) / p.parts
    ) AS k
) AS @{name}

-- name: rows_after
-- The rows with a deleted key after a position: the last of each has place 1023.
(sync_xid, seq) > (@{xid}, (@{position} - 1023) >> 10)

-- name: capture_deletes
-- Deleted keys in order. A key that exists again is not deleted: its row comes, or came, with the rows. Each
-- is looked up separately: for EXISTS the planner may read all keys of a table first.
SELECT d.sync_xid::text::bigint AS sync_xid, d.seq, d.source_table, d.key, CASE d.source_table @{cases} ELSE true END AS alive
FROM @{tombstones}
WHERE @{after_cursor}
ORDER BY d.sync_xid, d.pack, d.seq
LIMIT @{limit}

-- name: next_delete
-- The first deleted key after the cursor, in bytes: as text it could not be read.
SELECT d.sync_xid::text::bigint AS sync_xid, d.seq, @{source_bytes} AS source_table,
       ARRAY(SELECT @{part_bytes} FROM unnest(d.key) WITH ORDINALITY AS k (part, place) ORDER BY k.place) AS key,
       CASE d.source_table @{cases} ELSE true END AS alive
FROM @{tombstones}
WHERE @{after_cursor}
ORDER BY d.sync_xid, d.pack, d.seq
LIMIT 1

-- name: deletes_last
SELECT sync_xid, seq FROM @{stage} ORDER BY sync_xid DESC, seq DESC LIMIT 1

-- name: deletes_gone
-- Of all tables at once: several may have one source. A key that was deleted twice is one row. They are the first ones
-- there: looking for each before it is entered would cost more than to sort them. Those of listed tables are looked up
-- in the list once, in its order, for all that is to be known of them. OFFSET 0: each is found by the index.
INSERT INTO pg_temp.sync_leaving (table_name, row_id, key, place, target_id)
SELECT g.name, g.id, g.key, l.place, l.target_id
FROM (
    SELECT DISTINCT ON (m.name, r.id) m.name, r.id, d.key, m.listed
    FROM @{stage} d JOIN (VALUES @{tables}) AS m (name, source, listed) ON m.source = d.source_table
    CROSS JOIN LATERAL (SELECT syncline.row_uuid(d.key) AS id) AS r
    WHERE NOT d.alive
    ORDER BY m.name, r.id
) g
LEFT JOIN LATERAL (
    SELECT l.ctid AS place, l.target_id FROM sync_row l WHERE g.listed AND l.table_name = g.name AND l.row_id = g.id OFFSET 0
) l ON true

-- name: gone_children
-- A row that cannot exist without a removed row is removed with it.
INSERT INTO pg_temp.sync_leaving (table_name, row_id, key, again)
SELECT '@{child_name}', t.@{child_id}, ARRAY[@{key}], true
FROM @{child} t JOIN @{gone_rows} g ON g.table_name = '@{parent_name}' AND @{gone}
ON CONFLICT DO NOTHING

-- name: gone_keyed_children
-- The same, where a row's id is not its row id, or its key is its parents' keys.
INSERT INTO pg_temp.sync_leaving (table_name, row_id, key, again)
SELECT '@{child_name}', syncline.row_uuid(k.key), k.key, true
FROM @{child} t
JOIN @{gone_rows} g ON g.table_name = '@{parent_name}' AND @{gone}
@{joins}
CROSS JOIN LATERAL (SELECT ARRAY[@{key}] AS key) AS k@{ours}
ON CONFLICT DO NOTHING

-- name: gone_listed_children
-- The same of listed rows. OFFSET 0: each is found by the index, whatever the planner thinks of the list.
INSERT INTO pg_temp.sync_leaving (table_name, row_id, key, again)
SELECT '@{child_name}', k.row_id, k.key, true
FROM @{child} t
JOIN @{gone_rows} g ON g.table_name = '@{parent_name}' AND @{gone}
CROSS JOIN LATERAL (SELECT sync_row.row_id, sync_row.key FROM sync_row WHERE @{is_row} OFFSET 0) AS k
ON CONFLICT DO NOTHING

-- name: gone_any
-- None, for nearly every batch of rows.
SELECT true FROM pg_temp.sync_leaving LIMIT 1

-- name: gone_counted
-- How many rows of each table are to be removed, and whether any of this graph's may wait, or has to be read again: first
-- entries in index order, as in ledger_read.
SELECT table_name, count(*), 0 AS others,
       bool_or(again) OR (SELECT row_id FROM sync_parked_row ORDER BY table_name, row_id LIMIT 1) IS NOT NULL
           OR (SELECT owner FROM sync_parked_reference ORDER BY owner LIMIT 1) IS NOT NULL
           OR (SELECT row_id FROM sync_dead_letter ORDER BY table_name, row_id LIMIT 1) IS NOT NULL AS waits
FROM pg_temp.sync_leaving GROUP BY 1

-- name: gone_counted_listed
-- The same, and how many of all were set aside: those of these tables that are in no list are others', whatever key
-- their id is made of. OFFSET 0: each is found by the index.
WITH others AS (
    UPDATE pg_temp.sync_leaving g SET table_name = g.table_name || '/others'
    WHERE g.table_name = ANY (ARRAY[@{tables}]::text[]) AND g.place IS NULL AND (
        SELECT true FROM sync_row l WHERE l.table_name = g.table_name AND l.row_id = g.row_id OFFSET 0
    ) IS NULL
    RETURNING 1
)
SELECT c.table_name, c.count, (SELECT count(*) FROM others) AS others, c.waits FROM (@{counted}) c

-- name: others_back
-- Nothing of a row that never landed stays parked or rejected.
UPDATE pg_temp.sync_leaving SET table_name = left(table_name, -length('/others')) WHERE table_name LIKE '%/others'

-- name: aside_constraints
-- The foreign keys that act on other tables' rows when a row of this table is removed, and those tables'
-- columns.
SELECT f.conrelid::text::bigint AS child, f.confdeltype::text AS action,
       (SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.oid = f.conrelid) AS name,
       ARRAY(
           SELECT a.attname::text FROM unnest(f.conkey) WITH ORDINALITY k (attnum, place)
           JOIN pg_attribute a ON a.attrelid = f.conrelid AND a.attnum = k.attnum ORDER BY k.place
       ) AS columns,
       ARRAY(
           SELECT a.attname::text FROM unnest(f.confkey) WITH ORDINALITY k (attnum, place)
           JOIN pg_attribute a ON a.attrelid = f.confrelid AND a.attnum = k.attnum ORDER BY k.place
       ) AS referenced,
       ARRAY(
           SELECT a.attname::text FROM pg_index i, unnest(i.indkey::int2[]) k
           JOIN pg_attribute a ON a.attnum = k
           WHERE i.indrelid = f.conrelid AND i.indisprimary AND a.attrelid = f.conrelid
       ) AS key,
       ARRAY(
           SELECT a.attname::text FROM pg_attribute a
           WHERE a.attrelid = f.conrelid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
           ORDER BY a.attnum
       ) AS written
FROM pg_constraint f
WHERE f.contype = 'f' AND f.confrelid = $1::text::oid AND f.confdeltype <> 'a' AND f.conparentid = 0
ORDER BY f.conname, f.oid

-- name: remove_links_of
WITH removed AS (
    DELETE FROM @{links} l USING @{gone_rows} g WHERE g.table_name = '@{table}' AND @{owner_gone}
    RETURNING l.@{owner}, l.@{member}
)@{recorded}@{touched}
SELECT count(*) FROM removed

-- name: remove_links_to
-- A link to a removed row is parked until the row returns, unless its owner is removed too.
WITH removed AS (
    DELETE FROM @{links} l USING @{gone_rows} g
    WHERE g.table_name = '@{parent_name}' AND @{member_gone}
    RETURNING l.@{owner}, l.@{member}, g.key[1] AS sync_member_key@{member_id}
), parked AS (
    INSERT INTO sync_parked_reference (table_name, name, owner, waits_for_table, waits_for, waits_for_key@{also})
    SELECT '@{child_name}', '@{links_name}', @{owner_row}, '@{parent_name}', @{member_row}, r.sync_member_key@{owner_key} FROM removed r
    WHERE NOT EXISTS (SELECT FROM pg_temp.sync_leaving g WHERE g.table_name = '@{child_name}' AND @{owner_gone})@{is_ours}@{listed}
    ON CONFLICT DO NOTHING
)@{recorded}@{touched}
SELECT count(*) FROM removed

-- name: remove_reference_to
-- An optional reference to a removed row is parked until the row returns.
WITH changed AS (
    UPDATE @{child} t SET @{reference} = NULL FROM @{gone_rows} g
    WHERE g.table_name = '@{parent_name}' AND @{gone}
      AND NOT EXISTS (SELECT FROM pg_temp.sync_leaving o WHERE o.table_name = '@{child_name}' AND @{child_gone})@{ours}
    RETURNING t.@{child_id}, g.row_id AS parent, @{parent_key} AS parent_key@{owner}
), parked AS (
    INSERT INTO sync_parked_reference (table_name, name, owner, waits_for_table, waits_for, waits_for_key@{also})
    SELECT '@{child_name}', '@{reference_name}', @{owner_row}, '@{parent_name}', parent, parent_key@{also} FROM changed@{unkept}
    ON CONFLICT DO NOTHING
)@{queue}
SELECT count(*) FROM changed

-- name: remove_rows
-- A row is removed and its outbox entry written in one statement.
WITH changed AS (
    DELETE FROM @{target} t USING @{gone_rows} g WHERE g.table_name = '@{table}' AND @{same_row}
    RETURNING @{returned}
)@{queue}@{touched}@{restored}
SELECT count(*) FROM changed

-- name: remove_columns
-- A source row that writes into the rows of another table map leaves them as they are without it.
WITH changed AS (
    UPDATE @{target} t SET (@{columns}) = ROW (@{values}) FROM @{gone_rows} g
    WHERE g.table_name = '@{table}' AND @{same_row} AND @{differs}@{ours}
    RETURNING @{returned}
)@{queue}@{touched}
SELECT count(*) FROM changed

-- name: remove_waiting
-- Nothing of a removed row stays parked; rows removed with their parent are requested again, and so are rows
-- rejected for a unique value that it had.
WITH RECURSIVE freed AS (
    SELECT d.table_name, d.row_id, d.key FROM sync_dead_letter d JOIN pg_temp.sync_leaving g
        ON d.table_name = g.table_name AND d.held_by = g.row_id
    UNION
    SELECT d.table_name, d.row_id, d.key FROM freed f JOIN sync_dead_letter d
        ON d.table_name = f.table_name AND d.held_by = f.row_id
), rows AS (
    DELETE FROM sync_parked_row r USING pg_temp.sync_leaving g
    WHERE NOT g.again AND r.table_name = g.table_name AND r.row_id = g.row_id
), parts AS (
    DELETE FROM sync_parked_reference r USING pg_temp.sync_leaving g
    WHERE r.table_name = g.table_name AND r.owner = g.row_id
), letters AS (
    DELETE FROM sync_dead_letter d USING pg_temp.sync_leaving g
    WHERE NOT g.again AND d.table_name = g.table_name AND d.row_id = g.row_id
)
INSERT INTO sync_requeue (table_name, row_id, key, reason, queued_at)
SELECT table_name, row_id, key, 'its parent left', clock_timestamp() FROM pg_temp.sync_leaving WHERE again
UNION ALL
SELECT table_name, row_id, key, 'a value it wants is free',
       clock_timestamp() + row_number() OVER () * interval '1 microsecond'
FROM freed
ON CONFLICT DO NOTHING

-- name: prune
-- Up to $3 rows of deleted keys after ($1, $2) and before transaction $4, if past their retention; checked
-- at once, by the last of them. The position pruned up to is stored in the same statement, for a graph-db
-- that is restored to before it had read them. By their places: joined by key, the planner would read the keys of all
-- rows, and nothing moves or updates a row under this transaction's lock.
WITH looked_at AS MATERIALIZED (
    SELECT d.ctid AS place, sync_xid, seq, NOT (@{kept}) AS old FROM ONLY @{tombstones} d
    WHERE (sync_xid, seq) > ($1::text::xid8, $2::bigint) AND sync_xid < $4::text::xid8@{own}
    ORDER BY sync_xid, seq LIMIT $3
), pruned AS (
    DELETE FROM ONLY @{tombstones} d WHERE d.ctid = ANY (ARRAY(SELECT place FROM looked_at WHERE old))
    RETURNING d.sync_xid, CASE WHEN array_ndims(d.key) = 2 THEN array_length(d.key, 1) ELSE 1 END AS keys
), newest AS (
    SELECT sync_xid::text::bigint + 1 AS below FROM pruned ORDER BY pruned.sync_xid DESC LIMIT 1
)@{noted}
SELECT (SELECT coalesce(sum(keys), 0) FROM pruned)::bigint AS pruned, (SELECT bool_and(old) FROM looked_at) AS all_old,
       sync_xid::text AS xid, seq
FROM looked_at ORDER BY looked_at.sync_xid DESC, seq DESC LIMIT 1

-- name: prune_noted
, noted AS (
    UPDATE ONLY @{positions} SET cleared_below = greatest(cleared_below, n.below) FROM newest n WHERE reader = $5::text::uuid
)
