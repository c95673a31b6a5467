-- Rows of a target without a source row: marked ones, and stubs. The list of them, `sync_kept`.

-- name: is_kept
EXISTS (SELECT FROM @{list} WHERE sync_kept.table_name = '@{table}' AND sync_kept.target_key = @{target_key})

-- name: any_kept
-- Once for the statement, by the index.
 AND (SELECT true FROM sync_kept k WHERE k.table_name = '@{table}' ORDER BY k.table_name, k.row_id LIMIT 1)

-- name: with_source
(SELECT t.* FROM @{target} t WHERE NOT @{is_kept})

-- name: mark_rows
-- Rows that leave the write-db stay and are marked, once. Those that leave with a parent are removed.
WITH changed AS (
    UPDATE @{target} t SET (@{columns}) = ROW (@{values}) FROM @{gone_rows} g
    WHERE g.table_name = '@{table}' AND g.again IS FALSE AND @{same_row}
      AND NOT EXISTS (SELECT FROM sync_kept k WHERE k.table_name = '@{table}' AND k.row_id = g.row_id)
    RETURNING @{returned}, g.row_id AS sync_gone_row, g.key AS sync_gone_key
), kept AS (
    INSERT INTO sync_kept (table_name, row_id, key, target_key)
    SELECT '@{table}', c.sync_gone_row, c.sync_gone_key, @{target_key} FROM changed c
)@{queue}@{touched}
SELECT count(*) FROM changed

-- name: marked_aside
-- Marked rows are not removed, nor what refers to them.
UPDATE pg_temp.sync_leaving g SET table_name = '@{aside}'
FROM sync_kept k
WHERE g.table_name = '@{table}' AND g.again IS FALSE
  AND k.table_name = '@{table}' AND k.row_id = g.row_id AND NOT k.stub

-- name: stubs_aside
-- Nor are stubs to which a row still refers.
UPDATE pg_temp.sync_leaving g SET table_name = '@{aside}'
FROM sync_kept k
WHERE g.table_name = '@{table}' AND g.again IS FALSE
  AND k.table_name = '@{table}' AND k.row_id = g.row_id AND k.stub AND @{referred}

-- name: kept_back
UPDATE pg_temp.sync_leaving g SET table_name = '@{table}' WHERE g.table_name = '@{aside}'

-- name: kept_removed
-- What was removed after all is in the list no longer, and only what was marked is left.
WITH removed AS (
    DELETE FROM sync_kept k USING pg_temp.sync_leaving g WHERE k.table_name = g.table_name AND k.row_id = g.row_id
)
DELETE FROM pg_temp.sync_leaving g WHERE g.table_name <> ALL (ARRAY[@{asides}]::text[])

-- name: unkept
-- A marked row waits for nothing.
 WHERE NOT EXISTS (SELECT FROM sync_kept k WHERE k.table_name = '@{table}' AND k.row_id = @{row_id})

-- name: kept_landed
-- Rows of the batch have a source row: a marked one is there again, a stub is the row that it stood for.
WITH landed AS (
    DELETE FROM sync_kept k USING @{stage} s
    WHERE s.sync_present AND k.table_name = '@{table}' AND k.row_id = @{row_id}
    RETURNING k.row_id
), changed AS (
    SELECT @{returned} FROM landed k JOIN @{stage} s ON @{row_id} = k.row_id JOIN @{target} t ON @{here}
)@{queue}@{touched}
SELECT count(*) FROM changed

-- name: kept_left
-- Rows of tables that the map no longer keeps so are read again by key: the write-db has none, so they leave.
WITH left_now AS (
    DELETE FROM sync_kept k USING unnest($1::text[], $2::boolean[]) AS u (name, stub)
    WHERE k.table_name = u.name AND k.stub = u.stub
    RETURNING k.table_name, k.row_id, k.key
)
INSERT INTO sync_requeue (table_name, row_id, key, reason)
SELECT table_name, row_id, key, 'the map keeps it no longer' FROM left_now
ON CONFLICT DO NOTHING

-- name: stubs_left
-- Stubs to which nothing refers any longer are requested by key: the write-db has none, so they leave.
INSERT INTO sync_requeue (table_name, row_id, key, reason)
SELECT '@{table}', k.row_id, k.key, 'nothing refers to this stub'
FROM (SELECT DISTINCT id FROM pg_temp.@{noted} WHERE counted = '@{label}') u
JOIN sync_kept k ON k.table_name = '@{table}' AND k.target_key = ARRAY[u.id::text] AND k.stub
WHERE NOT @{referred}
ON CONFLICT DO NOTHING

-- name: make_stubs
-- A missing row that required references name is made of what the first of them says, and listed as a stub.
WITH missing AS MATERIALIZED (
    SELECT DISTINCT ON (m.sync_stub_row) m.*
    FROM (
        SELECT @{id} AS sync_stub_id, @{row} AS sync_stub_row, ARRAY[@{key}] AS sync_stub_key, @{proposed}
        FROM @{stage} s
        WHERE s.sync_present AND s.@{reference} IS NOT NULL
          AND NOT EXISTS (SELECT FROM @{parent} p WHERE @{is_parent})
    ) m
    ORDER BY m.sync_stub_row
), changed AS (
    INSERT INTO @{parent} AS t (@{columns})
    SELECT @{values} FROM missing m
    RETURNING t.@{parent_id}
), kept AS (
    INSERT INTO sync_kept (table_name, row_id, key, target_key, stub)
    SELECT '@{parent_name}', m.sync_stub_row, m.sync_stub_key, ARRAY[m.sync_stub_id::text], true FROM missing m
    ON CONFLICT (table_name, row_id) DO UPDATE SET target_key = excluded.target_key, stub = true, since = now()
)@{noted}@{lines}
SELECT count(*) FROM changed

-- name: name_stubs
-- Those that were looked up by another value are known now.
UPDATE @{stage} s SET @{reference_id} = @{id}
WHERE s.sync_present AND s.@{reference} IS NOT NULL AND s.@{reference_id} IS NULL

-- name: stub_of_row
-- The stub that stands for a staged row by a value of it, under a key of its own.
sync_kept k
JOIN @{target} t ON t.@{id} = k.target_key[1]::@{id_type}
JOIN @{stage} s ON t.@{by} = @{value} AND t.@{by}::text COLLATE "C" = @{value} AND k.row_id <> @{row_id}

-- name: oust_stubs
-- A row that is in the target already takes over what refers to the stub: it is removed, and that is read again.
INSERT INTO pg_temp.sync_leaving (table_name, row_id, key, again)
SELECT '@{table}', k.row_id, k.key, NULL
FROM @{found}
WHERE k.table_name = '@{table}' AND k.stub AND s.sync_present AND EXISTS (SELECT FROM @{target} o WHERE o.@{id} = s.@{staged})
ON CONFLICT DO NOTHING

-- name: adopt_stubs
-- A new row takes the stub over: that gets its id, with all that refers to it, and is merged as its older version.
-- In one statement: foreign keys are checked at its end.
WITH found AS MATERIALIZED (
    SELECT DISTINCT ON (k.row_id) k.row_id AS stub, t.@{id} AS old_id, s.@{staged} AS id, @{row_id} AS row_id, ARRAY[@{key}] AS key
    FROM @{found}
    WHERE k.table_name = '@{table}' AND k.stub AND s.sync_present AND NOT EXISTS (SELECT FROM @{target} o WHERE o.@{id} = s.@{staged})
    ORDER BY k.row_id, @{row_id}
), changed AS (
    UPDATE @{target} t SET @{id} = f.id FROM found f WHERE t.@{id} = f.old_id RETURNING t.@{id}
), kept AS (
    UPDATE sync_kept k SET row_id = f.row_id, key = f.key, target_key = ARRAY[f.id::text]
    FROM found f WHERE k.table_name = '@{table}' AND k.row_id = f.stub
)@{moved}
SELECT count(*) FROM changed

-- name: move_references
, moved@{number} AS (
    UPDATE @{child} c SET @{changes} WHERE @{concerned}
    RETURNING @{returned}
)@{queue}@{touched}

-- name: move_stats
, counts AS (
    UPDATE @{stats} n SET @{owner} = f.id FROM found f WHERE n.@{owner} = f.old_id
)

-- name: kept_give_way
-- A kept row under whose id the batch has another key's row leaves, and so does one that would be marked: no row of
-- the write-db waits for an id that one without a source row has.
WITH held AS (
    SELECT DISTINCT l.row_id FROM @{stage} s CROSS JOIN LATERAL (@{holder} OFFSET 0) l
    WHERE s.sync_present AND l.row_id <> s.sync_row_id
), leaving AS (
    UPDATE pg_temp.sync_leaving g SET again = NULL FROM held h
    WHERE g.table_name = '@{table}' AND g.row_id = h.row_id AND g.again IS FALSE
)
INSERT INTO pg_temp.sync_leaving (table_name, row_id, key, again)
SELECT '@{table}', k.row_id, k.key, NULL FROM held h JOIN sync_kept k ON k.table_name = '@{table}' AND k.row_id = h.row_id
ON CONFLICT DO NOTHING
