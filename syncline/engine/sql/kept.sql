-- Rows of a target without a source row: marked ones, and stubs. The list of them, `sync_kept`.

-- name: is_kept
EXISTS (SELECT FROM @{list} WHERE sync_kept.table_name = '@{table}' AND sync_kept.target_key = @{target_key})

-- name: with_source
(SELECT t.* FROM @{target} t WHERE NOT @{is_kept})

-- name: mark_rows
-- Rows that leave the write-db stay and are marked, once. Those that leave with a parent are removed.
WITH changed AS (
    UPDATE @{target} t SET (@{columns}) = ROW (@{values}) FROM pg_temp.sync_gone g
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
UPDATE pg_temp.sync_gone g SET table_name = '@{aside}'
FROM sync_kept k
WHERE g.table_name = '@{table}' AND g.again IS FALSE
  AND k.table_name = '@{table}' AND k.row_id = g.row_id AND NOT k.stub

-- name: marked_back
UPDATE pg_temp.sync_gone g SET table_name = '@{table}' WHERE g.table_name = '@{aside}'

-- name: kept_removed
-- What was removed after all is in the list no longer, and only what was marked is left.
WITH removed AS (
    DELETE FROM sync_kept k USING pg_temp.sync_gone g WHERE k.table_name = g.table_name AND k.row_id = g.row_id
)
DELETE FROM pg_temp.sync_gone g WHERE g.table_name <> ALL (ARRAY[@{asides}]::text[])

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
