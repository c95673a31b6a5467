SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS horizon,
       pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS next_xid,
       r.belongs, r.version, r.named
FROM (SELECT) AS one
LEFT JOIN LATERAL (
    SELECT (@{present}) IS TRUE AS belongs, sync_xid::text::bigint AS version, ARRAY[@{values}]::text[] AS named
    FROM @{source} WHERE @{same_key}
) AS r ON true
