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

-- name: stub_columns
SELECT a.attname::text AS name, NOT a.attnotnull AS nullable, pg_get_expr(d.adbin, d.adrelid) AS default
FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped

-- name: stubs_standing
-- Rows that may be stubs: something refers to them, and they have nothing else than those.
SELECT c.* FROM (
    SELECT @{row_id} AS row_id, ARRAY[@{key}] AS key, @{target_key} AS target_key
    FROM @{target} t WHERE NOT @{is_kept} AND @{referred}@{bare}
) c
WHERE array_position(c.key, NULL) IS NULL

-- name: present_keys
SELECT ARRAY[@{key}] AS key FROM @{source} WHERE (@{key}) IN (SELECT * FROM unnest(@{parameters})) AND (@{present}) IS TRUE

-- name: stubs_enter
INSERT INTO sync_kept (table_name, row_id, key, target_key, stub)
SELECT '@{table}', u.row_id, ARRAY(SELECT jsonb_array_elements_text(u.key::jsonb)),
       ARRAY(SELECT jsonb_array_elements_text(u.target_key::jsonb)), true
FROM unnest($1::uuid[], $2::text[], $3::text[]) AS u (row_id, key, target_key)
ON CONFLICT DO NOTHING

-- name: foreseen_kept
CREATE TEMP TABLE sync_kept ON COMMIT DROP AS SELECT * FROM @{schema}.sync_kept

-- name: foreseen_kept_index
CREATE INDEX ON pg_temp.sync_kept (target_key, table_name)
