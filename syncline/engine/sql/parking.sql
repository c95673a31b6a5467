-- Rows and references whose parent has not arrived: park, release.

-- name: resolve_by_value
-- The parent is referred to by a value: each value is looked up once, however many rows have it. Byte by byte too: in
-- some collations `a` equals `A`. The first comparison uses the index.
UPDATE @{stage} s SET @{reference_id} = f.id
FROM (
    SELECT v.value, (
        SELECT p.@{parent_id} FROM @{parent} p WHERE p.@{by} = v.value AND p.@{by}::text COLLATE "C" = v.value
        ORDER BY p.@{parent_id} LIMIT 1
    ) AS id
    FROM (SELECT DISTINCT s.@{reference} AS value FROM @{stage} s) v OFFSET 0
) f
WHERE f.value = s.@{reference}

-- name: park_rows
-- A row whose required parent is missing is parked under it, whole, and leaves the batch. One without any
-- reference would wait forever: it stays in the batch and is rejected.
WITH orphan AS (
    DELETE FROM @{stage} s
    WHERE s.sync_present AND s.@{reference} IS NOT NULL@{within}
      AND NOT EXISTS (SELECT FROM @{parent} p WHERE @{is_parent})
    RETURNING s.*
), outdated AS (
    -- The version that has landed is no longer true.
    INSERT INTO pg_temp.sync_leaving (table_name, row_id, key, again)
    SELECT '@{table}', @{row_id}, ARRAY[@{key}], NULL
    FROM orphan s WHERE EXISTS (SELECT FROM @{target} t WHERE @{same_row})
    ON CONFLICT DO NOTHING
), absolved AS (
    -- What waits for a parent is no dead letter any longer.
    DELETE FROM sync_dead_letter d USING orphan s WHERE d.table_name = @{of_table} AND d.row_id = @{row_id}
), parked AS (
    INSERT INTO sync_parked_row AS r (table_name, row_id, key, image, waits_for_table, waits_for, waits_for_key)
    SELECT '@{table}', @{row_id}, ARRAY[@{key}], @{image}, '@{parent_name}', @{waits_for}, @{waits_for_key}
    FROM orphan s
    ON CONFLICT (table_name, row_id) DO UPDATE
    SET image = excluded.image, waits_for_table = excluded.waits_for_table, waits_for = excluded.waits_for,
        waits_for_key = excluded.waits_for_key, released = false
    RETURNING 1
)
SELECT count(*) FROM parked

-- name: beside
AND NOT EXISTS (SELECT FROM @{stage} o WHERE o.@{own_id} = @{named_id} AND o.sync_present)

-- name: park_reference
-- An optional reference to a row that is neither here nor in this batch is parked alone; the row is applied
-- without it.
WITH missing AS (
    SELECT s.ctid AS at, @{row_id} AS owner, @{waits_for} AS waits_for, @{waits_for_key} AS waits_for_key@{owner_key}
    FROM @{stage} s
    WHERE s.sync_present
      AND @{named} IS NOT NULL
      AND NOT EXISTS (SELECT FROM @{parent} p WHERE @{is_parent})
      @{beside}
), parked AS (
    INSERT INTO sync_parked_reference (table_name, name, owner, waits_for_table, waits_for, waits_for_key@{also})
    SELECT '@{table}', '@{name}', owner, '@{parent_name}', waits_for, waits_for_key@{also} FROM missing
    ON CONFLICT DO NOTHING
)
UPDATE @{stage} s SET @{reference} = NULL@{with_id} FROM missing WHERE s.ctid = missing.at

-- name: unpark_rows
-- What is still staged is applied now; an older version of it must not stay parked.
DELETE FROM sync_parked_row r USING @{stage} s WHERE r.table_name = @{of_table} AND r.row_id = @{row_id}

-- name: unpark_references
-- The staged version of a row determines which of its links and references are parked.
DELETE FROM sync_parked_reference r USING @{stage} s WHERE r.table_name = @{of_table} AND r.owner = @{row_id}

-- name: awaiting
-- Which parked rows `r` wait for a staged row: for many at once.
@{condition} AND EXISTS (SELECT FROM @{stage} s WHERE s.sync_present AND r.waits_for = @{landed})

-- name: awaiting_few
-- Which parked rows `r` wait for a staged row: each staged row looks them up by index. Written as a join, the
-- planner would read all of them as long as it has no statistics: it expects half a percent of all to wait
-- for any one row.
r.ctid = ANY (ARRAY(
    SELECT w.ctid
    FROM @{stage} s
    CROSS JOIN LATERAL (SELECT r.ctid FROM @{parked} r WHERE r.waits_for = @{landed} AND @{condition} OFFSET 0) AS w
    WHERE s.sync_present
))

-- name: release_rows
UPDATE sync_parked_row r SET released = true WHERE @{awaiting}

-- name: release_links
WITH ready AS (
    DELETE FROM sync_parked_reference r WHERE @{awaiting}
    RETURNING @{parked_owner}, @{parked_member} AS member@{place}
), changed AS (
    INSERT INTO @{links} AS l (@{owner}, @{member}@{columns})
    SELECT d.owner, d.member@{values} FROM ready d JOIN @{child} t ON t.@{child_id} = d.owner @{unrejected}
    ON CONFLICT@{conflict} DO NOTHING
    RETURNING l.@{owner}, l.@{member}
)@{recorded}@{touched}
SELECT count(*) FROM changed

-- name: release_reference
WITH ready AS (
    DELETE FROM sync_parked_reference r WHERE @{awaiting}
    RETURNING @{parked_owner}, @{parked_parent}
), changed AS (
    UPDATE @{child} t SET @{reference} = r.waits_for FROM ready r WHERE t.@{child_id} = r.owner RETURNING t.@{child_id}, t.@{reference}
)@{queue}@{touched}
SELECT count(*) FROM changed

-- name: release_to_requeue
-- What was rejected when released is requested with its row, which can be identified and become a dead
-- letter.
WITH ready AS (
    DELETE FROM sync_parked_reference r WHERE @{awaiting}
    RETURNING @{parked_owner}
)
INSERT INTO sync_requeue (table_name, row_id, key, reason)
SELECT DISTINCT '@{child_name}', @{child_row}, ARRAY[@{child_key}], 'its release was refused' FROM ready r JOIN @{child} t ON t.@{child_id} = r.owner@{ours}
ON CONFLICT DO NOTHING

-- name: released
-- The tables of $1 with rows whose parent has arrived; in index order, as in ledger_read.
ARRAY(
    SELECT t.name FROM unnest($1::text[]) AS t (name)
    WHERE (
        SELECT r.table_name FROM sync_parked_row r WHERE r.released AND r.table_name >= t.name
        ORDER BY r.table_name LIMIT 1
    ) = t.name
)

-- name: not_landed
-- Counts kept by triggers, so that this costs the same however many wait.
SELECT name AS table_name,
       coalesce(sum(entries) FILTER (WHERE counted <> 'sync_dead_letter'), 0)::bigint AS parked,
       coalesce(sum(entries) FILTER (WHERE counted = 'sync_dead_letter'), 0)::bigint AS dead
FROM sync_count
WHERE counted <> 'sync_outbox' AND entries > 0
GROUP BY name
