-- Everything that is known of one row.

-- name: source_row
SELECT @{horizon}::text::bigint AS horizon,
       pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS next_xid,
       r.belongs, r.version, r.named
FROM (SELECT) AS one
LEFT JOIN LATERAL (
    SELECT (@{present}) IS TRUE AS belongs, sync_xid::text::bigint AS version, ARRAY[@{values}]::text[] AS named
    FROM @{source} WHERE @{same_key}
) AS r ON true

-- name: tombstone
-- The last time that the key was deleted.
SELECT seq, sync_xid::text::bigint AS version, deleted_at
FROM @{tombstones}
WHERE key = ARRAY[@{key}]
ORDER BY sync_xid DESC, seq DESC
LIMIT 1

-- name: target_row
SELECT @{id} AS id, @{version} AS sync_version, r.run_id, r.workflow_id, r.attempt, r.provider,
       r.provider_version, r.taken_at
FROM @{target} t
LEFT JOIN sync_run r ON r.fence = @{run}
WHERE @{same_row}

-- name: kept_row
SELECT since, stub FROM sync_kept WHERE table_name = $1 AND row_id = $2

-- name: cursors
SELECT table_name, xid, key, (to_jsonb(c) ->> 'below')::bigint AS below FROM sync_cursor c WHERE table_name = ANY ($1::text[])

-- name: state_of_row
SELECT p.waits_for_table, p.waits_for_key, p.since, p.released, coalesce((p.image ->> 'sync_xid')::bigint, 0) AS version,
       q.reason, q.queued_at
FROM (SELECT) AS one
LEFT JOIN sync_parked_row p ON p.table_name = $1 AND p.row_id = $2
LEFT JOIN sync_requeue q ON q.table_name = $1 AND q.row_id = $2

-- name: waits_of_row
SELECT name, waits_for_table, waits_for_key, since, count(*) OVER () AS in_all
FROM sync_parked_reference
WHERE table_name = $1 AND owner = $2
ORDER BY since, name, waits_for
LIMIT $3

-- name: waiting_for_row
SELECT table_name AS "table", name, count(*) AS waiting, min(since) AS since
FROM (
    SELECT table_name, NULL AS name, since FROM sync_parked_row
    WHERE NOT released AND waits_for_table = $1 AND waits_for = ANY ($2::uuid[])
    UNION ALL
    SELECT table_name, name, since FROM sync_parked_reference
    WHERE waits_for_table = $1 AND waits_for = ANY ($2::uuid[])
) AS waiting
GROUP BY table_name, name
ORDER BY waiting DESC, table_name, name

-- name: discards_of_row
-- The latest discard that was for this row or may have been, since what the graph-db has came.
SELECT number, at, who, action, why, table_name AS "table", key, fingerprint, rows
FROM sync_audit
WHERE action = 'discard' AND at > coalesce($3::timestamptz, '-infinity')
  AND (table_name IS NULL OR table_name = $1) AND (key IS NULL OR key = $2::text[])
ORDER BY key IS NULL, number DESC
LIMIT 1

-- name: vector_of_row
SELECT t.text IS NOT NULL AS wanted, v.point_id IS NOT NULL AS written, v.embedding,
       v.text_hash IS NOT DISTINCT FROM sha256(convert_to(t.text, 'UTF8')) AS current,
       o.queued_at, coalesce(o.attempts, 0) AS attempts, o.next_retry_at, o.error,
       d.since AS delayed_since, d.error AS delay_error
FROM (SELECT) AS one
LEFT JOIN LATERAL (SELECT (@{text}) AS text FROM @{target} t WHERE @{same_row}) AS t ON true
LEFT JOIN sync_vector v ON v.collection = $1 AND v.point_id = $2
LEFT JOIN sync_outbox o ON o.collection = $1 AND o.point_id = $2
LEFT JOIN sync_vector_delay d ON d.collection = $1
