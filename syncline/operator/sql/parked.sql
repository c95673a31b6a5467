-- Parked rows and references.

-- name: parked
-- Of one table; keyset order, by the keys of both tables.
SELECT w.row_id, w.waits_for, nullif(w.name, '') AS name, coalesce(w.key, @{owner_key}, '{}') AS key,
       w.waits_for_table, w.waits_for_key, w.since, w.released
FROM (
    SELECT row_id, '' AS name, waits_for, key, waits_for_table, waits_for_key, since, released, NULL::text[] AS owner_key
    FROM sync_parked_row WHERE table_name = $1
    UNION ALL
    SELECT owner, name, waits_for, NULL, waits_for_table, waits_for_key, since, false, owner_key
    FROM sync_parked_reference WHERE table_name = $1
) AS w
WHERE $2::uuid IS NULL OR (w.row_id, w.name, w.waits_for) > ($2, $3::text, $4::uuid)
ORDER BY w.row_id, w.name, w.waits_for
LIMIT $5

-- name: parked_counts
SELECT (SELECT count(*) FROM sync_parked_row WHERE NOT released) AS rows,
       (SELECT count(*) FROM sync_parked_reference) AS references,
       (SELECT count(*) FROM sync_parked_row WHERE released) AS released

-- name: landed
WHEN w.waits_for_table = '@{table}' AND @{named_by} THEN EXISTS (SELECT FROM @{target} t WHERE @{match})

-- name: awaited
-- The rows that hold back most, what waits for them, and what the engine state has about them.
-- $1 to $4 are the references by value: child, its column, parent, the parent's column.
WITH waiting AS (
    SELECT r.table_name, NULL AS name, r.waits_for_table, r.waits_for, r.waits_for_key, r.since, v.named_by
    FROM sync_parked_row r
    LEFT JOIN unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS v (child, referring, parent, named_by)
        ON v.child = r.table_name AND v.parent = r.waits_for_table AND r.image ->> v.referring = r.waits_for_key
    WHERE NOT r.released
    UNION ALL
    SELECT table_name, name, waits_for_table, waits_for, waits_for_key, since, NULL FROM sync_parked_reference
), parts AS MATERIALIZED (
    SELECT waits_for_table, waits_for, named_by, table_name, name,
           min(waits_for_key) AS key, count(*) AS waiting, min(since) AS since
    FROM waiting
    GROUP BY waits_for_table, waits_for, named_by, table_name, name
), wanted AS (
    SELECT waits_for_table, waits_for, named_by, min(key) AS key, sum(waiting)::bigint AS waiting, min(since) AS since,
           count(*) OVER () AS all_awaited
    FROM parts
    GROUP BY waits_for_table, waits_for, named_by
    ORDER BY 5 DESC, 6, 1, 2
    LIMIT $5
), told AS (
    SELECT o.waits_for_table, o.waits_for, o.named_by,
           jsonb_agg(
               jsonb_build_object('table', o.table_name, 'name', o.name, 'waiting', o.waiting, 'since', o.since)
               ORDER BY o.waiting DESC, o.table_name, o.name
           )::text AS parts
    FROM parts o
    JOIN wanted w ON o.waits_for_table = w.waits_for_table AND o.waits_for = w.waits_for
        AND o.named_by IS NOT DISTINCT FROM w.named_by
    GROUP BY o.waits_for_table, o.waits_for, o.named_by
)
SELECT w.waits_for_table AS "table", w.named_by, w.key, w.waiting, w.since, w.all_awaited, told.parts,
       CASE @{landed} END AS landed,
       p.waits_for_table AS parked_for_table, p.waits_for_key AS parked_for_key,
       d.sqlstate, CASE WHEN d.by_code THEN '@{from_code}' ELSE d.message END AS message, d.next_retry_at
FROM wanted w
JOIN told ON told.waits_for_table = w.waits_for_table AND told.waits_for = w.waits_for
    AND told.named_by IS NOT DISTINCT FROM w.named_by
LEFT JOIN sync_parked_row p ON w.named_by IS NULL AND p.table_name = w.waits_for_table AND p.row_id = w.waits_for
LEFT JOIN sync_dead_letter d ON w.named_by IS NULL AND d.table_name = w.waits_for_table AND d.row_id = w.waits_for
ORDER BY w.waiting DESC, w.since, w.waits_for_table, w.waits_for

-- name: awaited_source
-- What was deleted is asked for a row's own key alone, and for all keys at once: tombstones are not in their order.
SELECT '@{table}' AS "table", @{named_by} AS named_by, asked.key, found.there, found.present, gone.deleted_at
FROM unnest($@{number}::text[]) AS asked (key)
CROSS JOIN LATERAL (
    SELECT count(*) > 0 AS there, bool_or((@{present}) IS TRUE) AS present FROM @{source} WHERE @{is_asked}
) AS found
LEFT JOIN (
    SELECT @{key} AS key, max(d.deleted_at) AS deleted_at FROM @{tombstones}
    WHERE @{own_key} AND d.key IN (SELECT @{asked_key} FROM unnest($@{number}::text[]) AS k)
    GROUP BY d.key
) AS gone ON gone.key = asked.key

-- name: owner_key
(SELECT ARRAY[@{key}] FROM @{target} t WHERE t.@{id} = w.row_id)
