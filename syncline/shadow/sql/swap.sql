-- Renames both schemas, each for the other. Statements that are prepared look names up again.
-- Afterwards the shadow's books are the live graph's: both say what they are about, and neither has a fence that a
-- cycle of before could hold.
ALTER SCHEMA @{live} RENAME TO syncline_promotion;
ALTER SCHEMA @{shadow} RENAME TO @{live};
ALTER SCHEMA syncline_promotion RENAME TO @{shadow};
UPDATE @{live}.sync_state l
SET fence = greatest(l.fence, s.fence) + 1, vector_prefix = @{live_prefix}, shadow_provider = NULL
FROM @{shadow}.sync_state s;
UPDATE @{shadow}.sync_state s
SET fence = l.fence, vector_prefix = @{shadow_prefix}, shadow_provider = @{shadow_provider}
FROM @{live}.sync_state l;
-- What people did to the graph by hand stays with it.
INSERT INTO @{live}.sync_audit (at, who, action, why, table_name, key, fingerprint, rows, run_id)
SELECT a.at, a.who, a.action, a.why, a.table_name, a.key, a.fingerprint, a.rows, a.run_id
FROM @{shadow}.sync_audit a
WHERE NOT EXISTS (
    SELECT FROM @{live}.sync_audit b WHERE (b.at, b.who, b.action) = (a.at, a.who, a.action)
)
ORDER BY a.at
