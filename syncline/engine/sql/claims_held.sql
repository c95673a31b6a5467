-- Which staged row wants a value that another staged row has at the target, and gives up.
SELECT w.sync_tid AS wants, h.sync_tid AS held
FROM @{target} t
JOIN pg_temp.sync_claim w ON w.@{applies} AND @{wanted}
JOIN pg_temp.sync_claim h ON @{same_held}
WHERE @{predicate} AND w.sync_tid <> h.sync_tid AND (h.@{applies} AND @{kept}) IS NOT TRUE
