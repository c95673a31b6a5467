-- The staged rows' links become exactly what their arrays say; a link to a missing member waits alone.
WITH desired AS MATERIALIZED (
    SELECT s.sync_row_id AS owner, syncline.key_uuid(member.key) AS member, member.key
    FROM @{stage} s, unnest(s.@{source}) AS member (key)
    WHERE s.sync_present AND member.key IS NOT NULL
), removed AS (
    DELETE FROM @{links} l USING @{stage} s
    WHERE l.@{owner} = s.sync_row_id AND s.sync_present
      AND NOT EXISTS (SELECT FROM desired d WHERE d.owner = l.@{owner} AND d.member = l.@{member})
    RETURNING 1
), parked AS (
    INSERT INTO sync_parked_reference (table_name, name, owner, waits_for_table, waits_for, waits_for_key)
    SELECT '@{table}', '@{links_name}', d.owner, '@{parent_name}', d.member, d.key
    FROM desired d
    WHERE NOT EXISTS (SELECT FROM @{parent} p WHERE p.id = d.member)
    ON CONFLICT DO NOTHING
), added AS (
    INSERT INTO @{links} (@{owner}, @{member})
    SELECT d.owner, d.member FROM desired d JOIN @{parent} p ON p.id = d.member
    ON CONFLICT DO NOTHING
    RETURNING 1
)
SELECT (SELECT count(*) FROM removed) + (SELECT count(*) FROM added)
