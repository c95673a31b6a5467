-- All that says something about a link of the owner; `kind` is what: that the owner is there, that it is linked,
-- that a link waits, or that one is rejected. A link that waits for what is there would never be made.
SELECT f.owner AS row_id, f.kind, f.member, coalesce(f.member_key, p.key, f.member::text) AS member_key
FROM (
    SELECT o.id AS owner, 'owner' AS kind, NULL::uuid AS member, NULL AS member_key FROM @{owners} o
    UNION ALL
    SELECT l.@{owner}, 'linked', l.@{member}, NULL FROM @{links} l
    UNION ALL
    SELECT r.owner, 'waits', r.waits_for, r.waits_for_key
    FROM sync_parked_reference r
    WHERE r.table_name = '@{table}' AND r.name = '@{name}'
      AND NOT EXISTS (SELECT FROM @{parent} p WHERE p.id = r.waits_for)
    @{rejections}
) f
LEFT JOIN @{parent} p ON p.id = f.member
WHERE get_bit($2::bytea, @{bucket}) = 1 OR f.owner IN (SELECT unnest($1::uuid[]))
ORDER BY 1
