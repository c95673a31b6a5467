-- Links of both stores.

-- name: source_links
-- Each owner with each distinct member of its array; @{join} decides about owners without any.
@{owners}
@{join} LATERAL (
    SELECT @{member_id} AS member, d.key, @{rejected} AS rejected@{place}
    FROM (@{members} OFFSET 0) d
    OFFSET 0
) m ON true

-- name: named
SELECT DISTINCT a.key FROM unnest(s.@{array}) AS a (key) WHERE a.key IS NOT NULL

-- name: named_by
SELECT DISTINCT @{key} AS key FROM @{elements} AS a (value) WHERE @{named} IS NOT NULL

-- name: named_in_order
-- Each key with its first place in the array.
SELECT @{key} AS key, min(a.place) AS place FROM @{elements} WITH ORDINALITY AS a (value, place)
WHERE @{named} IS NOT NULL GROUP BY 1

-- name: named_texts
-- The same where the map says what a text names that is no key, which is worked out once for each.
SELECT DISTINCT n.key FROM (SELECT @{key} AS key FROM @{elements} AS a (value) OFFSET 0) n WHERE n.key IS NOT NULL

-- name: named_texts_in_order
SELECT n.key, min(n.place) AS place
FROM (SELECT @{key} AS key, a.place FROM @{elements} WITH ORDINALITY AS a (value, place) OFFSET 0) n
WHERE n.key IS NOT NULL GROUP BY 1

-- name: links_by_row
(SELECT @{owner_row} AS @{owner}, @{member_row} AS @{member}, @{member_key} AS sync_member_key@{more} FROM @{links} l@{listed} OFFSET 0)

-- name: link_ours
-- NULL: no array names the link, as far as the engine knows. False: others made it, and an array names it.
, (SELECT k.ours FROM sync_link k WHERE k.owner = @{owner_end} AND k.name = '@{links_name}' AND k.member = @{member_end}) AS sync_ours

-- name: rejected
EXISTS (
    SELECT FROM @{rejections}
    WHERE @{rejected_owner} = s.@{owner_key} AND @{rejected_member} = d.key AND (@{present}) IS TRUE
)

-- name: rejections
UNION ALL
SELECT @{owner}, 'rejected', @{member}, NULL@{no_place} FROM @{rejections} x

-- name: link_sums_source
SELECT @{bucket} AS bucket, count(*) AS rows, sum(@{hash})::text AS hashes
FROM @{links}
WHERE NOT m.rejected AND NOT EXISTS (SELECT FROM unnest($1::uuid[]) AS u (id) WHERE u.id = s.sync_row_id)
GROUP BY 1

-- name: link_sums_target
SELECT @{bucket} AS bucket, count(*) AS rows, sum(@{hash})::text AS hashes
FROM @{links} l
WHERE NOT EXISTS (SELECT FROM unnest($1::uuid[]) AS u (id) WHERE u.id = l.@{owner})@{known}
GROUP BY 1

-- name: listed_links_source
SELECT s.sync_row_id AS row_id, @{owner_key} AS owner_key, false AS coming, m.member, m.key AS member_key, m.rejected@{place}
FROM @{links}
WHERE get_bit($2::bytea, @{bucket}) = 1 OR s.sync_row_id IN (SELECT unnest($1::uuid[]))
UNION ALL
SELECT s.sync_row_id, NULL, true, NULL, NULL, NULL@{no_place}
FROM @{coming}
WHERE get_bit($2::bytea, @{bucket}) = 1 OR s.sync_row_id IN (SELECT unnest($1::uuid[]))
ORDER BY 1

-- name: listed_links_target
-- Everything that concerns a link of the owner; `kind`: the owner exists, it is linked (by others), a link is
-- parked, or a link is rejected. A link parked although its member exists would never be made.
SELECT f.owner AS row_id, f.kind, f.member, coalesce(f.member_key, @{parent_key}, f.member::text) AS member_key@{listed_place}
FROM (
    SELECT @{owner_row} AS owner, 'owner' AS kind, NULL::uuid AS member, NULL AS member_key@{no_place} FROM @{owners} o
    UNION ALL
    SELECT l.@{owner}, @{kind}, l.@{member}, @{member_key}@{place} FROM @{made} l
    UNION ALL
    SELECT r.owner, 'waits', r.waits_for, r.waits_for_key@{waiting_place}
    FROM sync_parked_reference r
    WHERE r.table_name = '@{table}' AND r.name = '@{name}'
      AND NOT EXISTS (SELECT FROM @{parent} p WHERE @{is_parent})
    @{rejections}
) f
LEFT JOIN @{parent} p ON @{same_member}
WHERE get_bit($2::bytea, @{bucket}) = 1 OR f.owner IN (SELECT unnest($1::uuid[]))
ORDER BY 1
