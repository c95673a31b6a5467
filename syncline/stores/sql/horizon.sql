-- The horizon: the transaction below which all of this database have ended.

-- name: here
-- The oid of this database.
(SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())

-- name: horizon
-- An expression of the statement's snapshot, xid8. A transaction of another database cannot write here. That it is one is
-- believed of what is asked after the snapshot was taken: whoever has a transaction of the snapshot was connected before, and
-- to the database that is told. So no statement may ask that follows one that did, in one transaction with several snapshots:
-- sessions are read once. Where nothing is listed, as on a standby, the server's own bound counts. It may be lower than it has
-- been, while a transaction ends.
(
    SELECT least(
        CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_snapshot_xip(s)) THEN pg_catalog.pg_snapshot_xmax(s)
            ELSE pg_catalog.pg_snapshot_xmin(s) END,
        pg_catalog.pg_current_xact_id_if_assigned(),
        (
            SELECT x
            FROM pg_catalog.pg_snapshot_xip(s) AS x
            WHERE NOT EXISTS (
                SELECT FROM pg_catalog.pg_stat_get_activity(NULL) AS a
                WHERE a.backend_xid = x::xid
                  AND a.datid <> @{here}
            ) AND NOT EXISTS (
                SELECT FROM pg_catalog.pg_prepared_xacts AS p
                WHERE p.transaction = x::xid AND p.database <> pg_catalog.current_database()
            )
            ORDER BY x LIMIT 1
        )
    )
    FROM pg_catalog.pg_current_snapshot() AS s
)

-- name: horizon_holder
-- A condition: whether the transaction that holds the horizon back is open, of this database or of none. If not, it has just ended.
EXISTS (
    SELECT FROM pg_catalog.pg_stat_get_activity(NULL) AS a
    WHERE a.backend_xid = @{horizon}::xid
      AND coalesce(a.datid = @{here}, true)
)
OR EXISTS (SELECT FROM pg_catalog.pg_prepared_xacts AS p WHERE p.transaction = @{horizon}::xid)

-- name: next_transaction
-- An expression of the statement's snapshot, xid8: no transaction of this database has begun from it on. `pg_snapshot_xmax` follows
-- the last that has ended, and later ones may be open. The id of a session's has no epoch: it is the one near that.
(
    SELECT greatest(
        pg_catalog.pg_snapshot_xmax(s),
        (
            SELECT (m + (max((a.backend_xid::text::bigint - m % 4294967296 + 6442450944) % 4294967296) - 2147483648) + 1)::text::xid8
            FROM pg_catalog.pg_stat_get_activity(NULL) AS a, (SELECT pg_catalog.pg_snapshot_xmax(s)::text::bigint AS m) AS reference
            WHERE a.backend_xid IS NOT NULL
              AND a.datid = @{here}
            GROUP BY m
        )
    )
    FROM pg_catalog.pg_current_snapshot() AS s
)

-- name: oldest_writer
-- The oldest open transaction that writes to this database, and its seconds; those are null where this role may not see them. A
-- prepared one has a `gid`.
SELECT extract(epoch FROM clock_timestamp() - open.since)::float8 AS age, open.pid, open.database, open.application_name, open.gid
FROM (
    SELECT xact_start AS since, pid, datname::text AS database, application_name, NULL::text AS gid
    FROM pg_catalog.pg_stat_activity
    WHERE backend_xid IS NOT NULL AND pid <> pg_catalog.pg_backend_pid() AND datname = pg_catalog.current_database()
    UNION ALL
    SELECT prepared, NULL, database::text, 'prepared transaction ' || gid, gid
    FROM pg_catalog.pg_prepared_xacts WHERE database = pg_catalog.current_database()
) AS open
ORDER BY open.since LIMIT 1
