-- What the staged rows will be at the target, as its unique rules see them.
CREATE TEMP TABLE sync_claim ON COMMIT DROP AS
SELECT @{claims}, false AS sync_leaves
FROM (
    SELECT p.*@{generated}
    FROM (
        SELECT s.ctid AS sync_tid, @{proposed}
        FROM @{stage} s LEFT JOIN @{target} t ON @{here}
        WHERE s.sync_present
    ) p
) p
