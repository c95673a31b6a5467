coalesce(
    (SELECT p.key FROM @{live} p WHERE p.id = coalesce(l.@{column}, s.@{column})),
    (SELECT p.key FROM @{shadow} p WHERE p.id = coalesce(l.@{column}, s.@{column})),
    coalesce(l.@{column}, s.@{column})::text
)
