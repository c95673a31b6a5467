-- Links with more than two ends: columns of their own, a place in the array, or links of others beside them.

-- name: merge_full_links
-- merge_links for these. `found`: the wanted links whose member is there, each once, and whether it is there itself.
WITH wanted AS MATERIALIZED (
    @{wanted}
), removed AS (
    DELETE FROM @{links} l USING @{stage} s
    WHERE l.@{owner} = s.@{own_id} AND s.sync_present
      AND NOT EXISTS (SELECT FROM wanted d WHERE d.owner = l.@{owner} AND d.member = l.@{member})@{is_ours}
    RETURNING l.@{owner}, l.@{member}
), parked AS (
    @{parked}
), found AS MATERIALIZED (
    SELECT f.*, l.@{owner} IS NOT NULL AS sync_linked
    FROM (SELECT d.owner, d.member@{first_place} FROM wanted d WHERE d.sync_there GROUP BY d.owner, d.member) f
    LEFT JOIN @{links} l ON l.@{owner} = f.owner AND l.@{member} = f.member
)@{moved}, added AS (
    INSERT INTO @{links} AS l (@{owner}, @{member}@{columns})
    SELECT d.owner, d.member@{values} FROM found d JOIN @{child} t ON t.@{own_column} = d.owner
    WHERE NOT d.sync_linked
    ORDER BY d.owner, d.member
    RETURNING l.@{owner}, l.@{member}
)@{recorded}@{touched}
SELECT (SELECT count(*) FROM removed) + (SELECT count(*) FROM added)@{moves}

-- name: links_placed
-- The keys that arrays name, with the first place of each.
SELECT n.owner, n.key, min(n.place) AS place
FROM (
    SELECT s.@{own_id} AS owner, @{key} AS key, e.place
    FROM @{stage} s CROSS JOIN LATERAL @{elements} WITH ORDINALITY AS e (value, place)
    WHERE s.sync_present
) n
WHERE n.key IS NOT NULL
GROUP BY n.owner, n.key

-- name: links_moved
, moved AS (
    UPDATE @{links} l SET @{position} = d.place FROM found d
    WHERE l.@{owner} = d.owner AND l.@{member} = d.member AND l.@{position} IS DISTINCT FROM d.place
    RETURNING l.@{owner}, l.@{member}
)

-- name: link_is_ours
-- No join: each link is looked up by the primary key, however few the planner expects.
 AND (SELECT k.ours FROM sync_link k WHERE k.owner = @{owner_end} AND k.name = '@{links_name}' AND k.member = @{member_end})@{made}

-- name: links_forgotten
-- What no array names any longer is not kept, whoever has removed the link. EXCEPT is no loop in a loop.
, unnamed AS MATERIALIZED (
    SELECT k.owner, k.member FROM @{stage} s JOIN sync_link k ON k.owner = @{staged_end} AND k.name = '@{links_name}'
    WHERE s.sync_present
    EXCEPT
    SELECT @{owner_end}, @{member_end} FROM wanted d
), forgotten AS (
    DELETE FROM sync_link k USING unnamed u
    WHERE k.owner = u.owner AND k.name = '@{links_name}' AND k.member = u.member
)

-- name: link_stood
EXISTS (SELECT FROM @{links} l WHERE l.@{owner} = d.owner AND l.@{member} = d.member)

-- name: links_recorded
-- Of a link that was there before the engine wanted it, others are the owner.
, recorded AS (
    INSERT INTO sync_link AS k (name, owner, member, ours)
    SELECT '@{links_name}', @{added_owner}, @{added_member}, true FROM @{added} c
    UNION ALL
    SELECT DISTINCT '@{links_name}', @{asked_owner}, @{asked_member}, false FROM @{asked} d
    WHERE @{stood}
      AND NOT EXISTS (
          SELECT FROM sync_link k
          WHERE k.owner = @{asked_owner} AND k.name = '@{links_name}' AND k.member = @{asked_member}
      )
    ON CONFLICT (owner, name, member) DO UPDATE SET ours = true
)

-- name: links_unrecorded
, forgotten AS (
    DELETE FROM sync_link k USING @{rows} WHERE @{condition} AND k.owner = @{owner_end} AND k.name = '@{links_name}'@{same_member}
)

-- name: links_all_recorded
-- Every link that is there is one that the engine has made: while all were its own, it made or kept each.
INSERT INTO sync_link (name, owner, member, ours)
SELECT '@{links_name}', @{owner_end}, @{member_end}, true FROM @{links} l
ON CONFLICT (owner, name, member) DO UPDATE SET ours = true

-- name: links_none_recorded
DELETE FROM sync_link WHERE name = ANY ($1::text[])

-- name: links_of_others
-- Whether a link table of schema @{schema} has links that others made.
SELECT EXISTS (
    SELECT FROM @{schema}.@{links} l
    WHERE NOT EXISTS (
        SELECT FROM @{schema}.sync_link k
        WHERE k.owner = @{owner_end} AND k.name = '@{links_name}' AND k.member = @{member_end} AND k.ours
    )
)
