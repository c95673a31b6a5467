-- The only question that an idle cycle asks of the write-db.
SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS horizon,
       (SELECT s.system_identifier || '/' || c.timeline_id || '/' || to_regclass('@{tombstones}')::oid
        FROM pg_control_system() AS s, pg_control_checkpoint() AS c) AS cluster,
       ARRAY[@{probes}] AS pending,
       ARRAY[@{ahead}]::int[] AS ahead,
       pg_is_in_recovery() AS standby,
       @{known} AS known,
       way.hashes, way.texts,
       @{old_tombstones} AS old_tombstones,
       writer.found AS writing, writer.age_seconds, writer.database, writer.application_name
FROM (
    @{captured}
) AS way
LEFT JOIN LATERAL (
    SELECT true AS found, extract(epoch FROM clock_timestamp() - open.since)::float8 AS age_seconds,
           open.database::text, open.application_name
    FROM (
        SELECT xact_start AS since, datname AS database, application_name
        FROM pg_stat_activity
        WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid()
        UNION ALL
        SELECT prepared, database, 'prepared transaction ' || gid FROM pg_prepared_xacts
    ) AS open
    ORDER BY open.since LIMIT 1
) AS writer ON true
