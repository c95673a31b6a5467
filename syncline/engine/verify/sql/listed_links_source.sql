SELECT s.sync_row_id AS row_id, s.@{owner_key} AS owner_key, false AS coming, m.member, m.key AS member_key, m.rejected
FROM @{links}
WHERE get_bit($2::bytea, @{bucket}) = 1 OR s.sync_row_id IN (SELECT unnest($1::uuid[]))
UNION ALL
SELECT s.sync_row_id, NULL, true, NULL, NULL, NULL
FROM @{coming}
WHERE get_bit($2::bytea, @{bucket}) = 1 OR s.sync_row_id IN (SELECT unnest($1::uuid[]))
ORDER BY 1
