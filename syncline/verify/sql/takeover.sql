-- Rows of a target that a first sync would double, and vectors that are there.

-- name: strange_counted
SELECT count(*) AS rows, count(*) FILTER (WHERE @{unreadable}) AS unreadable FROM @{target} t WHERE @{strange}

-- name: unlisted_counted
SELECT count(*) AS rows FROM @{target} t WHERE NOT @{ours}

-- name: unlisted_links_counted
SELECT count(*) AS links FROM @{links} l JOIN @{target} t ON t.@{id} = l.@{owner} WHERE NOT @{ours}

-- name: strange_listed
SELECT ARRAY[@{key}] AS key, ARRAY[@{ids}] AS ids FROM @{target} t WHERE @{strange} LIMIT $1

-- name: keep_vectors
-- Their texts are those that stand in the target, whoever wrote them.
WITH kept AS (
    INSERT INTO sync_vector (collection, point_id, text_hash, embedding)
    SELECT $1, d.id, sha256(convert_to(@{text}, 'UTF8')), $3
    FROM unnest($2::uuid[]) AS d (id) JOIN @{target} t ON @{point} = d.id
    WHERE @{text} IS NOT NULL
    ON CONFLICT DO NOTHING
    RETURNING 1
)
SELECT count(*) FROM kept
