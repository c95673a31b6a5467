-- The rows that hold back most, what waits for them, and what the books say about them.
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
