-- Queries of an idle cycle: is anything pending, and do the tables match the map.

-- name: footing
SELECT current_user::text AS role, p.oid IS NOT NULL AS there,
       coalesce(has_function_privilege(to_regprocedure('pg_catalog.pg_walfile_name(pg_lsn)'), 'EXECUTE')
           AND has_function_privilege(to_regprocedure('pg_catalog.pg_current_wal_lsn()'), 'EXECUTE'), false) AS timeline,
       coalesce(has_function_privilege(to_regprocedure('pg_catalog.pg_stat_get_bgwriter_stat_reset_time()'), 'EXECUTE'), false)
           AS statistics,
       coalesce(has_table_privilege(p.oid, 'SELECT'), false) AS readable,
       coalesce(has_table_privilege(p.oid, 'SELECT') AND has_table_privilege(p.oid, 'INSERT')
           AND has_table_privilege(p.oid, 'UPDATE'), false) AS writable
FROM (SELECT to_regclass($1)::oid AS oid) p

-- name: of_table
-- The table's name, as an expression that needs a staged row, so that rows are looked up one by one. For the
-- plain name, without statistics, the planner takes an index that begins with it for selective, and reads all
-- rows with this name.
left(s.sync_xid::text, 0) || '@{table}'

-- name: limit_settings
-- The value of a setting in this session, and where it was set.
SELECT s.name, current_setting(s.name) AS value,
       CASE s.source
           WHEN 'session' THEN 'set in this session'
           WHEN 'client' THEN 'set by the connection string or the client'
           WHEN 'configuration file' THEN 'set in postgresql.conf or by ALTER SYSTEM SET ' || s.name
           WHEN 'command line' THEN 'set on the server''s command line'
           WHEN 'environment variable' THEN 'set in the server''s environment'
           WHEN 'default' THEN 'the default'
           ELSE coalesce((
               SELECT 'set by ALTER'
                      || CASE WHEN d.setrole <> 0 THEN ' ROLE ' || quote_ident(r.rolname) ELSE '' END
                      || CASE
                             WHEN d.setdatabase <> 0 AND d.setrole <> 0 THEN ' IN DATABASE ' || quote_ident(b.datname)
                             WHEN d.setdatabase <> 0 THEN ' DATABASE ' || quote_ident(b.datname)
                             ELSE ''
                         END
                      || ' SET ' || s.name
               FROM pg_db_role_setting d
               LEFT JOIN pg_roles r ON r.oid = d.setrole
               LEFT JOIN pg_database b ON b.oid = d.setdatabase
               WHERE d.setrole IN (0, (SELECT u.oid FROM pg_roles u WHERE u.rolname = session_user))
                 AND d.setdatabase IN (0, (SELECT n.oid FROM pg_database n WHERE n.datname = current_database()))
                 AND EXISTS (SELECT FROM unnest(d.setconfig) c WHERE split_part(c, '=', 1) = s.name)
               ORDER BY d.setrole <> 0 DESC, d.setdatabase <> 0 DESC
               LIMIT 1
           ), 'set for the role or the database')
       END AS source
FROM pg_settings s
WHERE s.name = ANY ($1::text[]) AND NOT (s.unit = 'ms' AND s.setting = '0') AND NOT (s.unit = 'kB' AND s.setting = '-1')

-- name: pending
-- The only query of an idle cycle to the write-db.
WITH moment AS MATERIALIZED (SELECT @{horizon} AS horizon, pg_snapshot_xmax(pg_current_snapshot()) AS next_xid)
SELECT moment.horizon::text::bigint AS horizon, moment.next_xid::text::bigint AS next_xid,
       NOT pg_is_in_recovery() AND moment.horizon < moment.next_xid AND NOT (@{holder}) AS fallen,
       (SELECT s.system_identifier || '/' || c.timeline_id || '/' || to_regclass('@{tombstones}')::oid
        FROM pg_control_system() AS s, pg_control_checkpoint() AS c) AS cluster,
       ARRAY[@{probes}] AS pending,
       ARRAY[@{ahead}]::int[] AS ahead,
       pg_is_in_recovery() AS standby,
       @{known} AS known,
       way.hashes, way.texts, way.shapes,
       @{old_tombstones} AS old_tombstones,
       writer.database IS NOT NULL AS writing, writer.age, writer.database, writer.application_name
FROM moment
CROSS JOIN (
    @{captured}
) AS way
LEFT JOIN (@{oldest_writer}) AS writer ON true

-- name: captured
-- How each source is captured. A catalog row has another xmin after every change, even one that was reverted:
-- [table, triggers with their functions, columns, their xmins, file, [partitions with their triggers]]. One
-- statement for all tables: usually it has to be planned. The shape has all columns, those too that are not copied.
SELECT array_agg(hashtextextended(how.text, 0)::text ORDER BY source.place) AS hashes,
       array_agg(@{whole} ORDER BY source.place) AS texts,
       array_agg(how.shape ORDER BY source.place) AS shapes
FROM unnest(ARRAY[@{names}]::text[], ARRAY[@{columns}]::text[]) WITH ORDINALITY AS source (name, columns, place)
LEFT JOIN LATERAL (
    SELECT json_build_array(
        c.oid,
        (
            SELECT string_agg(
                concat_ws(
                    ':', t.oid, t.xmin, t.tgenabled, p.oid, p.xmin,
                    -- For INSERT or UPDATE alone: an earlier release had one trigger for both.
                    CASE WHEN t.tgname IN ('capture_version', 'capture_update') AND t.tgtype & 20 <> 20 THEN t.tgtype & 20 END
                ), ',' ORDER BY t.oid::bigint
            )
            FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
            WHERE t.tgrelid = c.oid
              AND t.tgname IN ('capture_version', 'capture_update', 'capture_delete', 'capture_key', 'capture_truncate')
        ),
        a.columns, a.stamps,
        c.relfilenode,
        CASE WHEN c.relkind = 'p' THEN (
            SELECT json_agg(
                json_build_array(
                    i.inhrelid, i.xmin::text,
                    (
                        SELECT string_agg(concat_ws(':', t.oid, t.xmin, t.tgenabled), ',' ORDER BY t.oid::bigint)
                        FROM pg_catalog.pg_trigger t
                        WHERE t.tgrelid = i.inhrelid
                          AND t.tgname IN ('capture_version', 'capture_update', 'capture_delete', 'capture_key')
                    ),
                    (
                        SELECT string_agg(concat_ws(':', t.oid, t.xmin, t.tgenabled), ',' ORDER BY t.oid::bigint)
                        FROM pg_catalog.pg_trigger t
                        WHERE t.tgrelid = i.inhrelid AND t.tgname = 'capture_truncate'
                    )
                ) ORDER BY i.inhrelid::bigint
            )
            FROM pg_catalog.pg_partition_tree(c.oid) l JOIN pg_catalog.pg_inherits i ON i.inhrelid = l.relid
            WHERE l.relid <> c.oid
        ) END
    )::text AS text,
    a.shape
    FROM pg_catalog.pg_class c
    CROSS JOIN LATERAL (
        SELECT json_agg(json_build_array(n.attnum, n.attname, n.atttypid, n.atttypmod) ORDER BY n.attnum)
                   FILTER (WHERE n.attname = ANY (source.columns::name[])) AS columns,
               -- A rewrite writes down the constant that rows from before adoption have here.
               string_agg(n.xmin::text, ',' ORDER BY n.attnum)
                   FILTER (WHERE n.attname = ANY (source.columns::name[]) AND n.attname <> 'sync_xid') AS stamps,
               hashtextextended(string_agg(concat_ws(':', n.attnum, n.attname, n.atttypid, n.atttypmod), ',' ORDER BY n.attnum), 0)::text AS shape
        FROM pg_catalog.pg_attribute n
        WHERE n.attrelid = c.oid AND n.attnum > 0
    ) a
    WHERE c.oid = to_regclass(source.name)
) AS how ON true

-- name: probe
-- The first row after the cursor, in index order. With EXISTS the planner would scan the table as long as it
-- has no statistics.
coalesce((
    SELECT sync_xid FROM @{source} WHERE @{after_cursor} ORDER BY sync_xid, @{key_order} LIMIT 1
) < (SELECT horizon FROM moment), false)

-- name: ahead
-- Null, or 1 when committed rows wait for an older transaction to end, or 2 when rows have stamps that no
-- transaction of this cluster can have: nothing visible is above xmax. Checks only the last row in index
-- order; with EXISTS the planner would scan the table page by page.
(
    SELECT CASE WHEN sync_xid >= (SELECT next_xid FROM moment) THEN 2 ELSE 1 END
    FROM @{source} WHERE sync_xid >= (SELECT horizon FROM moment)
    ORDER BY sync_xid DESC LIMIT 1
)

-- name: behind
-- The number of rows after a cursor, when one batch did not take them all: shown as progress.
SELECT count(*) FROM @{source} WHERE @{after_cursor} AND sync_xid < @{horizon}

-- name: position_recovered
-- When the server has last recovered from a crash, or from less: it resets these statistics then, and keeps them over a
-- shutdown. Before release 15 they are in a file that is waited for, so only a server that was started since is asked.
CASE WHEN current_setting('server_version_num')::int >= 150000 OR pg_catalog.pg_postmaster_start_time() > p.written_at
    THEN pg_catalog.pg_stat_get_bgwriter_stat_reset_time() END

-- name: position_known
-- What the write-db stores about this reader, up to where any reader has pruned deleted keys, and whether the server has
-- recovered from a crash since this reader's last token.
(
    SELECT json_build_array(
        p.branch, p.number, p.tokens[p.number - @{number} + 1],
        -- Beyond all transactions it is of another cluster, whose dump was loaded here.
        (
            SELECT q.cleared_below FROM @{positions} q
            WHERE q.cleared_below <= (SELECT next_xid FROM moment)::text::bigint
            ORDER BY q.cleared_below DESC LIMIT 1
        ),
        p.written_at < @{recovered}
    )::text
    FROM (SELECT) AS one LEFT JOIN @{positions} p ON p.reader = @{reader}
)

-- name: old_tombstones
-- Whether the oldest deleted key is past its retention: 1, or 2 if this role must not delete it, else 0.
-- Checks only the first in transaction order, so it is one index lookup however many there are.
coalesce((
    SELECT CASE WHEN sync_xid >= (SELECT horizon FROM moment) OR @{kept} OR pg_is_in_recovery() THEN 0
                WHEN has_table_privilege(d.tableoid, 'DELETE') THEN 1
                ELSE 2 END
    FROM @{tombstones} d ORDER BY sync_xid, seq LIMIT 1
), 0)

-- name: kept
-- The deleted keys that are kept, to explain what became of a row.
d.deleted_at >= now() - interval '7 days'

-- name: known
-- Of an empty target nothing is looked up.
CASE WHEN (SELECT true FROM @{target} LIMIT 1) THEN EXISTS (SELECT FROM @{stage} s JOIN @{target} t ON @{here} WHERE s.sync_present)
    ELSE false END

-- name: partition_first
SELECT sync_xid::text::bigint FROM @{partition} ORDER BY sync_xid LIMIT 1
