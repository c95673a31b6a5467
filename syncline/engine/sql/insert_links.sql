-- The links of rows that have none yet; a link to a missing member waits alone.
WITH wanted AS MATERIALIZED (
    @{wanted}
), parked AS (
    @{parked}
), added AS (
    INSERT INTO @{links} AS l (@{owner}, @{member})
    SELECT DISTINCT d.owner, d.member FROM wanted d JOIN @{parent} p ON p.id = d.member
    ORDER BY d.owner, d.member
    RETURNING l.@{owner}, l.@{member}
)@{touched}
SELECT count(*) FROM added
