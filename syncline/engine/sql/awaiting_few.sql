-- Which of the parked `r` wait for a staged row: each of these looks them up, by the index of what is waited for. However
-- the same is said as a join, the planner reads all of them as long as it has no statistics: it takes half a percent of
-- all for what waits for any one row.
r.ctid = ANY (ARRAY(
    SELECT w.ctid
    FROM @{stage} s
    CROSS JOIN LATERAL (SELECT r.ctid FROM @{parked} r WHERE r.waits_for = @{landed} AND @{condition} OFFSET 0) AS w
    WHERE s.sync_present
))
