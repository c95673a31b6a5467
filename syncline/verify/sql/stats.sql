-- Denormalised counts, recounted.

-- name: stats_group
LEFT JOIN (SELECT c.sync_owner, @{values} FROM (@{rows}) c GROUP BY 1) @{group} ON @{group}.sync_owner = o.@{id}
CROSS JOIN (SELECT @{values} FROM @{counted} c WHERE false) @{nothing}

-- name: stats_expected
-- Every row's counts, all recounted at once; an empty aggregate is not always zero, so that is queried as
-- well.
FROM @{target} o
LEFT JOIN @{stats} n ON n.@{owner} = o.@{id}
@{groups}

-- name: stats_count
SELECT count(*) FROM @{target} o

-- name: stats_differing
SELECT @{row_id} AS row_id, @{key} AS key, n.@{owner} IS NULL AS missing
@{expected}
WHERE n.@{owner} IS NULL OR @{differs}
ORDER BY 1

-- name: stats_mend_rows
-- Counts that stand in the row: there is nothing to insert.
WITH mended AS (
    UPDATE @{stats} t SET (@{columns}) = ROW (@{mended})
    FROM (SELECT o.@{id} AS sync_owner, @{named} @{expected} WHERE @{differs}) f
    WHERE t.@{owner} = f.sync_owner
    RETURNING 1
)
SELECT count(*) FROM mended

-- name: stats_mend
WITH mended AS (
    INSERT INTO @{stats} AS t (@{owner}, @{columns})
    SELECT o.@{id}, @{values}
    @{expected}
    WHERE n.@{owner} IS NULL OR @{differs}
    ON CONFLICT (@{owner}) DO UPDATE SET @{assignments}
    RETURNING 1
)
SELECT count(*) FROM mended
