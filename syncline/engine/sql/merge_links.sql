-- The staged rows' links become exactly what their arrays say; a link to a missing member waits alone.
WITH wanted AS MATERIALIZED (
    @{wanted}
), removed AS (
    DELETE FROM @{links} l USING @{stage} s
    WHERE l.@{owner} = s.sync_row_id AND s.sync_present
      AND NOT EXISTS (SELECT FROM wanted d WHERE d.owner = l.@{owner} AND d.member = l.@{member})
    RETURNING l.@{owner}, l.@{member}
), parked AS (
    @{parked}
), added AS (
    INSERT INTO @{links} AS l (@{owner}, @{member})
    SELECT DISTINCT d.owner, d.member FROM wanted d JOIN @{parent} p ON p.id = d.member
    WHERE NOT EXISTS (SELECT FROM @{links} l WHERE l.@{owner} = d.owner AND l.@{member} = d.member)
    ORDER BY d.owner, d.member
    RETURNING l.@{owner}, l.@{member}
)@{touched}
SELECT (SELECT count(*) FROM removed) + (SELECT count(*) FROM added)
