-- Compare a target with its source after the history has changed, and request what differs.

-- name: comparison_state
-- `seen` is null where the bookkeeping tables are older: what is gone then leaves page by page.
SELECT part, after, reason, (to_jsonb(c) ->> 'seen')::bigint AS seen FROM sync_comparison c WHERE table_name = $1

-- name: comparison_restart
WITH gone AS (DELETE FROM sync_absent WHERE table_name = ANY ($1::text[]))
UPDATE sync_comparison SET seen = 0, withheld = NULL WHERE table_name = ANY ($1::text[])

-- name: comparison_seen
UPDATE sync_comparison SET seen = seen + $2 WHERE table_name = $1

-- name: comparison_absent_rows
-- They leave once all keys were looked at, if they are not too many.
INSERT INTO sync_absent (table_name, row_id, key)
SELECT $1, d.row_id, ARRAY(SELECT jsonb_array_elements_text(d.key::jsonb))
FROM unnest($2::uuid[], $3::text[]) AS d (row_id, key)
ON CONFLICT DO NOTHING

-- name: comparison_withhold
-- Withhold the removal if more than $2 rows, and more than the part $3 of those seen, are gone: an operator has to agree.
UPDATE sync_comparison c SET withheld = a.rows
FROM (SELECT count(*) AS rows FROM sync_absent WHERE table_name = $1) AS a
WHERE c.table_name = $1 AND a.rows > greatest($2::bigint, floor($3::float8 * c.seen))
RETURNING withheld

-- name: comparisons_withheld
SELECT table_name, withheld, seen, reason FROM sync_comparison WHERE withheld IS NOT NULL ORDER BY table_name

-- name: comparison_release
WITH gone AS (DELETE FROM sync_absent WHERE table_name = $1 RETURNING row_id, key)
INSERT INTO sync_requeue (table_name, row_id, key, reason)
SELECT $1, row_id, key, 'its end was not captured' FROM gone
ON CONFLICT DO NOTHING

-- name: comparison_moved
UPDATE sync_comparison SET part = $2, after = $3::text[] WHERE table_name = $1

-- name: comparison_state_entries
-- The next parked or rejected rows.
SELECT row_id, key, ARRAY[row_id::text] AS after
FROM (
    SELECT row_id, key FROM sync_parked_row WHERE table_name = '@{table}'
    UNION
    SELECT row_id, key FROM sync_dead_letter WHERE table_name = '@{table}'
) b
WHERE $1::text[] IS NULL OR row_id > ($1::text[])[1]::uuid
ORDER BY row_id LIMIT $2

-- name: comparison_rows
-- The next rows of a target, in primary key order.
SELECT t.@{id} AS row_id, ARRAY[@{key}] AS key, ARRAY[t.@{id}::text] AS after
FROM @{target} t
WHERE $1::text[] IS NULL OR t.@{id} > ($1::text[])[1]::uuid
ORDER BY t.@{id} LIMIT $2

-- name: comparison_keyed_rows
-- The same, where a row's id is not its row id, or its key is its parents' keys.
SELECT syncline.row_uuid(k.key) AS row_id, k.key, ARRAY[@{own_texts}] AS after
FROM (
    SELECT * FROM @{target} t
    WHERE $1::text[] IS NULL OR (@{own_key}) > (@{after})
    ORDER BY @{own_key} LIMIT $2
) t
@{joins}
CROSS JOIN LATERAL (SELECT ARRAY[@{key}] AS key) AS k
ORDER BY @{own_key}

-- name: comparison_listed
-- The next rows that are listed; others that stand in the target are not ours.
SELECT row_id, key, ARRAY[row_id::text] AS after
FROM sync_row
WHERE table_name = '@{table}' AND ($1::text[] IS NULL OR row_id > ($1::text[])[1]::uuid)
ORDER BY row_id LIMIT $2

-- name: comparison_absent
-- The positions of those keys that the write-db does not have.
SELECT d.place
FROM (SELECT ARRAY[@{parts}] AS key, u.place FROM unnest(@{parameters}) WITH ORDINALITY AS u (@{parts}, place)) d
WHERE NOT EXISTS (SELECT FROM @{source} t WHERE @{same_key})

-- name: comparison_ask
-- Requested by key: rows that the write-db still does not have then are deleted.
INSERT INTO sync_requeue (table_name, row_id, key, reason)
SELECT $1, d.row_id, ARRAY(SELECT jsonb_array_elements_text(d.key::jsonb)), 'its end was not captured'
FROM unnest($2::uuid[], $3::text[]) AS d (row_id, key)
ON CONFLICT DO NOTHING
