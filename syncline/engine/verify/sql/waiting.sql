-- References that wait, but for those whose other end is there: nothing would release them any more.
LEFT JOIN (
    SELECT r.owner, (array_agg(r.waits_for))[1] AS waits_for
    FROM sync_parked_reference r
    WHERE r.table_name = '@{table}' AND r.name = '@{name}'
      AND NOT EXISTS (SELECT FROM @{parent} p WHERE p.id = r.waits_for)
    GROUP BY r.owner
) @{alias} ON @{alias}.owner = @{row_id}
