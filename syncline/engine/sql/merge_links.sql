-- The staged rows' links become exactly what their arrays say; a link to a missing member waits alone.
WITH desired AS MATERIALIZED (
    SELECT s.sync_row_id AS owner, syncline.key_uuid(member.key) AS member, member.key
    FROM @{stage} s, unnest(s.@{source}) AS member (key)
    WHERE s.sync_present AND member.key IS NOT NULL
), wanted AS (
    SELECT d.* FROM desired d @{unrejected}
), removed AS (
    DELETE FROM @{links} l USING @{stage} s
    WHERE l.@{owner} = s.sync_row_id AND s.sync_present
      AND NOT EXISTS (SELECT FROM wanted d WHERE d.owner = l.@{owner} AND d.member = l.@{member})
    RETURNING l.@{owner}, l.@{member}
), parked AS (
    INSERT INTO sync_parked_reference (table_name, name, owner, waits_for_table, waits_for, waits_for_key)
    SELECT '@{table}', '@{links_name}', d.owner, '@{parent_name}', d.member, d.key
    FROM wanted d
    WHERE NOT EXISTS (SELECT FROM @{parent} p WHERE p.id = d.member)
    ON CONFLICT DO NOTHING
), added AS (
    INSERT INTO @{links} AS l (@{owner}, @{member})
    SELECT DISTINCT d.owner, d.member FROM wanted d JOIN @{parent} p ON p.id = d.member
    WHERE NOT EXISTS (SELECT FROM @{links} l WHERE l.@{owner} = d.owner AND l.@{member} = d.member)
    ORDER BY d.owner, d.member
    RETURNING l.@{owner}, l.@{member}
)@{touched}
SELECT (SELECT count(*) FROM removed) + (SELECT count(*) FROM added)
