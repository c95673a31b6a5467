-- Write a staged batch into its target table, with its vector outbox entries.

-- name: insert
-- The merge of a batch without any row that the target has: nothing to compare.
WITH changed AS (
    INSERT INTO @{target} AS t (@{columns})@{overriding}
    SELECT @{values} FROM @{stage} s WHERE s.sync_present@{order}
    RETURNING @{returned}
)@{queue}@{touched}
SELECT count(*) FROM changed

-- name: merge
-- A row is changed and its outbox entry written in one statement. It has two parts, since no other session
-- writes here: joins cost less than a conflict check for every row.
WITH updated AS (
    UPDATE @{target} AS t SET @{assignments}
    FROM (SELECT @{proposed} FROM @{stage} s WHERE s.sync_present) AS p
    WHERE @{same} AND (@{differs})
    RETURNING @{returned}
), inserted AS (
    INSERT INTO @{target} AS t (@{columns})@{overriding}
    SELECT @{values} FROM @{stage} s
    WHERE s.sync_present AND NOT EXISTS (SELECT FROM @{target} t WHERE @{here})@{order}
    RETURNING @{returned}
), changed AS (
    SELECT * FROM updated UNION ALL SELECT * FROM inserted
)@{queue}@{touched}@{rematch}
SELECT count(*) FROM changed

-- name: merge_into
-- Columns of rows that another table map makes.
WITH updated AS (
    UPDATE @{target} AS t SET @{assignments}
    FROM (SELECT @{proposed} FROM @{stage} s WHERE s.sync_present) AS p
    WHERE @{same} AND (@{differs})
    RETURNING @{returned}
), changed AS (
    SELECT * FROM updated
)@{queue}@{touched}
SELECT count(*) FROM changed

-- name: before
(SELECT @{columns} FROM @{target} o JOIN updated c ON @{same}) c

-- name: moved
-- The rows by which an updated row was counted, and by which it is now, if they differ.
SELECT m.counted, m.id
FROM @{target} o JOIN updated c ON @{same}
CROSS JOIN LATERAL (VALUES @{ends}) AS m (counted, id)
WHERE (@{before}) IS DISTINCT FROM (@{after}) AND m.id IS NOT NULL

-- name: attempt_range
(SELECT * FROM @{stage} WHERE ctid >= $1 AND ctid <= $2)

-- name: queue
, queued@{number} AS (
    INSERT INTO sync_outbox (collection, point_id@{named}) SELECT '@{collection}', @{id} FROM @{rows}
    ON CONFLICT (collection, point_id) DO UPDATE SET
        seq = excluded.seq, queued_at = excluded.queued_at, attempts = 0, next_retry_at = NULL, error = NULL@{renamed}
)

-- name: rematch
, @{name} AS (
    INSERT INTO sync_requeue (table_name, row_id, key, reason)
    SELECT '@{child_name}', @{child_row}, ARRAY[@{child_key}], 'its parent changed'
    FROM updated c JOIN @{parent} o ON o.@{id} = c.@{id} JOIN @{child} t ON t.@{reference} = c.@{id}
    WHERE o.@{by}::text COLLATE "C" IS DISTINCT FROM c.@{by}::text@{ours}
    ON CONFLICT DO NOTHING
)

-- name: state_of_rows
-- What the bookkeeping tables have of a batch's table: first entries in index order, as in ledger_read.
@{noted}SELECT (SELECT row_id FROM sync_parked_row ORDER BY table_name, row_id LIMIT 1) IS NOT NULL AS rows,
       (SELECT owner FROM sync_parked_reference ORDER BY owner LIMIT 1) IS NOT NULL AS references,
       (
           SELECT row_id FROM sync_dead_letter WHERE table_name = '@{table}' ORDER BY table_name, row_id LIMIT 1
       ) IS NOT NULL AS letters,
       @{known} AS known
