-- Links: the members that a row's arrays name.

-- name: insert_links
-- The links of rows that have none yet; a link to a missing member is parked alone.
WITH wanted AS MATERIALIZED (
    @{wanted}
), parked AS (
    @{parked}
), added AS (
    INSERT INTO @{links} AS l (@{owner}, @{member})
    SELECT DISTINCT d.owner, d.member FROM wanted d WHERE d.sync_there
    ORDER BY d.owner, d.member
    RETURNING l.@{owner}, l.@{member}
)@{touched}
SELECT count(*) FROM added

-- name: merge_links
-- The staged rows' links become exactly what their arrays contain; a link to a missing member is parked
-- alone.
WITH wanted AS MATERIALIZED (
    @{wanted}
), removed AS (
    DELETE FROM @{links} l USING @{stage} s
    WHERE l.@{owner} = s.@{own_id} AND s.sync_present
      AND NOT EXISTS (SELECT FROM wanted d WHERE d.owner = l.@{owner} AND d.member = l.@{member})
    RETURNING l.@{owner}, l.@{member}
), parked AS (
    @{parked}
), added AS (
    INSERT INTO @{links} AS l (@{owner}, @{member})
    SELECT DISTINCT d.owner, d.member FROM wanted d
    WHERE d.sync_there AND NOT EXISTS (SELECT FROM @{links} l WHERE l.@{owner} = d.owner AND l.@{member} = d.member)
    ORDER BY d.owner, d.member
    RETURNING l.@{owner}, l.@{member}
)@{touched}
SELECT (SELECT count(*) FROM removed) + (SELECT count(*) FROM added)

-- name: links_wanted
-- `sync_there`: whether the member is.
SELECT d.*, p.@{parent_id} IS NOT NULL AS sync_there FROM (
        SELECT m.owner, @{member_id} AS member@{named_key}
        FROM (@{named}) m
        WHERE m.key IS NOT NULL
    ) d LEFT JOIN @{there} @{unrejected}

-- name: links_there
@{parent} p ON p.@{parent_id} = d.member

-- name: links_looked_up
-- Each by its id (OFFSET 0). Members that are named by expressions are of unknown number, and as a join the planner would
-- read all rows of the parent for a few.
LATERAL (SELECT p.@{parent_id} FROM @{parent} p WHERE p.@{parent_id} = d.member OFFSET 0) p ON true

-- name: links_named
SELECT s.sync_row_id AS owner, unnest(s.@{source}) AS key FROM @{stage} s WHERE s.sync_present

-- name: links_named_by
-- The same for other keys and ids: members in the form of their keys, or as their ids where those are the keys.
SELECT s.@{own_id} AS owner, @{key} AS key
FROM @{stage} s CROSS JOIN LATERAL @{elements} AS e (value)
WHERE s.sync_present OFFSET 0

-- name: links_owner
 JOIN @{stage} s ON s.@{own_id} = d.owner

-- name: elements
unnest(s.@{source})

-- name: json_elements
jsonb_array_elements_text(CASE WHEN jsonb_typeof(s.@{source}) = 'array' THEN s.@{source} END)

-- name: links_parked
INSERT INTO sync_parked_reference (table_name, name, owner, waits_for_table, waits_for, waits_for_key@{also})
    SELECT '@{table}', '@{links_name}', @{owner_row}, '@{parent_name}', @{member_row}, @{member_key}@{also_kept}
    FROM wanted d@{of_owner} WHERE NOT d.sync_there
    ON CONFLICT DO NOTHING

-- name: unrejected
WHERE NOT EXISTS (SELECT FROM @{rejections} x WHERE x.@{rejected_owner} = d.owner AND x.@{rejected_member} = d.member)

-- name: reject_links
-- A rejection removes its link, whether applied or parked. Each that is parked is looked up by its key (OFFSET 0): as a
-- join, the planner would read all of them.
WITH removed AS (
    DELETE FROM @{links} l USING @{stage} s
    WHERE s.sync_present AND l.@{owner} = s.@{owner_id} AND l.@{member} = s.@{member_id}@{is_ours}
    RETURNING l.@{owner}, l.@{member}
), waiting AS (
    DELETE FROM sync_parked_reference WHERE ctid = ANY (ARRAY(
        SELECT k.place FROM @{stage} s CROSS JOIN LATERAL (
            SELECT r.ctid AS place FROM sync_parked_reference r
            WHERE r.table_name = '@{child_name}' AND r.name = '@{links_name}'
              AND r.owner = @{owner_row} AND r.waits_for = @{member_row} OFFSET 0
        ) AS k WHERE s.sync_present
    ))
)@{recorded}@{touched}
SELECT count(*) FROM removed

-- name: restore_links
, restored AS (
    INSERT INTO sync_requeue (table_name, row_id, key, reason)
    SELECT '@{child_name}', @{child_row}, ARRAY[@{child_key}], 'a rejection left' FROM changed c JOIN @{child} o ON o.@{child_id} = c.@{owner}@{ours}
    ON CONFLICT DO NOTHING
)
