WITH ready AS (
    DELETE FROM sync_parked_reference r WHERE @{awaiting}
    RETURNING r.owner, r.waits_for AS member
), changed AS (
    INSERT INTO @{links} AS l (@{owner}, @{member})
    SELECT d.owner, d.member FROM ready d JOIN @{child} t ON t.id = d.owner @{unrejected}
    ON CONFLICT DO NOTHING
    RETURNING l.@{owner}, l.@{member}
)@{touched}
SELECT count(*) FROM changed
