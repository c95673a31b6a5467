-- Rows of a target that a first sync would double, and vectors that are there.

-- name: strange_counted
SELECT count(*) AS rows, count(*) FILTER (WHERE @{unreadable}) AS unreadable FROM @{target} t WHERE @{strange}

-- name: unlisted_counted
SELECT count(*) AS rows FROM @{target} t WHERE NOT @{ours}

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

-- name: foreseen_create
CREATE TEMP TABLE sync_row (LIKE @{schema}.sync_row INCLUDING INDEXES) ON COMMIT DROP

-- name: foreseen_known
INSERT INTO pg_temp.sync_row SELECT * FROM @{schema}.sync_row WHERE table_name = ANY ($1::text[])

-- name: foreseen_enter
-- Source rows that stand in the target, as a first sync would list them; of two with one id the first.
INSERT INTO pg_temp.sync_row (table_name, row_id, key, target_id)
SELECT '@{table}', s.sync_row_id, ARRAY[@{key}], @{id}
FROM @{stage} s
WHERE s.sync_present AND EXISTS (SELECT FROM @{target} t WHERE t.@{own} = s.@{staged})
ORDER BY s.sync_row_id
ON CONFLICT DO NOTHING

-- name: foreseen_entered
DELETE FROM @{stage}
