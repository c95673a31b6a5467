-- Each owner with each member of its array once; @{join} decides about owners without any.
@{owners}
@{join} LATERAL (
    SELECT @{member_id} AS member, d.key, @{rejected} AS rejected
    FROM (SELECT DISTINCT a.key FROM unnest(s.@{array}) AS a (key) WHERE a.key IS NOT NULL OFFSET 0) d
    OFFSET 0
) m ON true
