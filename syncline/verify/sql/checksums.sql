-- Checksums of rows by bucket.

-- name: bucket
((((get_byte(uuid_send(@{id}), 0) << 8) | get_byte(uuid_send(@{id}), 1)) >> 2))

-- name: key_uuid
-- syncline.key_uuid, inlined: the write-db does not have it. It is made from a key's bytes.
encode(substr(set_byte(set_byte(sha256(@{bytes}), 6, 128), 8, 128), 1, 16), 'hex')::uuid

-- name: hash
('x' || encode(substr(sha256(@{bytes}), 1, 8), 'hex'))::bit(64)::bigint

-- name: target_with_id
-- OFFSET 0 again: the id is computed once.
(SELECT t.*, @{row_id} AS sync_row_id FROM @{target} t OFFSET 0) t

-- name: target_listed
-- Rows of others are in no list.
(
    SELECT t.*, sync_row.row_id AS sync_row_id, sync_row.key AS sync_key
    FROM @{target} t JOIN sync_row ON @{of_row} OFFSET 0
) t

-- name: target_where
(SELECT t.* FROM @{target} t WHERE @{condition})

-- name: source_with_values
(SELECT s.* FROM @{rows} WHERE @{differs} OFFSET 0) s

-- name: sums
-- Sums, not exclusive ors: two equal stray rows would cancel each other out.
SELECT @{bucket} AS bucket, count(*) AS rows, sum(@{hash})::text AS hashes
FROM @{rows}
WHERE NOT EXISTS (SELECT FROM unnest($1::uuid[]) AS u (id) WHERE u.id = @{row_id})
GROUP BY 1

-- name: waiting
-- Parked references, except those whose parent exists: nothing would release them any more.
LEFT JOIN (
    SELECT r.owner, (array_agg(@{kept}))[1] AS waits_for
    FROM sync_parked_reference r
    WHERE r.table_name = '@{table}' AND r.name = '@{name}'
      AND NOT EXISTS (SELECT FROM @{parent} p WHERE @{is_parent})
    GROUP BY r.owner
) @{alias} ON @{alias}.owner = @{row_id}
