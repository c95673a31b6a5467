SELECT o.id AS row_id, o.key, n.@{owner} IS NULL AS missing
@{expected}
WHERE n.@{owner} IS NULL OR @{differs}
ORDER BY 1
