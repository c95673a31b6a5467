-- What is visible of the write-db's transactions: for those who wait for theirs.

-- name: visible_look
-- The running server and database, and of each table whether it shows rows from transaction $1 on: they may have
-- taken the place of earlier versions before those were read. All of one snapshot.
SELECT s.system_identifier || '.' || d.oid || '.'
           || (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint AS source,
       extract(epoch FROM clock_timestamp() - pg_postmaster_start_time())::float8 AS uptime,
       @{horizon}::text::bigint AS below,
       ARRAY[@{shown}] AS shown
FROM pg_control_system() AS s, pg_database d WHERE d.datname = current_database()

-- name: visible_shown
-- The last row in index order, as in `ahead`.
coalesce((SELECT sync_xid FROM @{source} ORDER BY sync_xid DESC LIMIT 1) >= $1::text::xid8, false)

-- name: visible_rows
(SELECT @{place} AS place, NULL::bytea AS source, ARRAY[@{key}] AS key FROM @{source} WHERE sync_xid >= $1::text::xid8 ORDER BY sync_xid LIMIT @{limit})

-- name: visible_deletes
(
    SELECT -1 AS place, @{source_bytes} AS source,
           ARRAY(SELECT @{part_bytes} FROM unnest(d.key) WITH ORDINALITY AS k (part, place) ORDER BY k.place) AS key
    FROM @{tombstones} ORDER BY d.sync_xid, d.pack, d.seq LIMIT @{limit}
)

-- name: visible_request
INSERT INTO sync_requeue (table_name, row_id, key, reason)
SELECT r.table_name, r.row_id, ARRAY(SELECT jsonb_array_elements_text(r.key::jsonb)), 'it is newer than what is waited for'
FROM unnest($1::text[], $2::uuid[], $3::text[]) AS r (table_name, row_id, key)
ON CONFLICT DO NOTHING

-- name: visible_advance
-- Below $2 everything of server $1 was applied, parked or rejected. What is parked or rejected now can stand for an
-- earlier version of its row: transactions up to its own are not known to be clean by this look. Only the last
-- positions and intervals are kept: an older token is answered by what waits now. $4: whether no row was read beyond
-- $2; else what was queued for transactions after it may have come before, and it is no position to tell that by.
-- While a load goes on, `below` stays, and only what came after the load's rows is known to be clean. Bookkeeping tables
-- may be older than loads.
WITH loads AS (
    SELECT max((to_jsonb(c) ->> 'below')::bigint) AS below FROM sync_cursor c
), hidden AS (
    SELECT coalesce(greatest(
        (SELECT max((image ->> 'sync_xid')::bigint) FROM sync_parked_row),
        (SELECT max(version) FROM sync_dead_letter)
    ), -1) AS up_to
), moved AS (
    UPDATE sync_state s
    SET visible = s.visible || jsonb_build_object(
            'wanted', $3::bigint, 'at', clock_timestamp(),
            'sources', CASE WHEN coalesce(s.visible -> 'sources', '[]') ? $1::text THEN s.visible -> 'sources'
                            ELSE coalesce(s.visible -> 'sources', '[]') || to_jsonb($1::text) END
        ) || CASE WHEN l.below IS NULL THEN jsonb_build_object('below', greatest((s.visible ->> 'below')::bigint, $2::bigint))
                  ELSE '{}' END,
        visible_clean = (
            SELECT coalesce(range_agg(k.span), '{}')
            FROM (
                SELECT u.span
                FROM unnest(
                    s.visible_clean
                    + int8multirange(int8range(least(greatest(h.up_to + 1, l.below), $2::bigint), $2::bigint))
                ) AS u (span)
                ORDER BY lower(u.span) DESC LIMIT 200
            ) AS k
        )
    FROM hidden h CROSS JOIN loads l
), marked AS (
    INSERT INTO sync_visible (below, seq)
    SELECT $2::bigint, coalesce(pg_sequence_last_value('sync_outbox_seq_seq'::regclass), 0) WHERE $4
    ON CONFLICT (below) DO NOTHING
), old AS (
    DELETE FROM sync_visible
    WHERE below < (SELECT below FROM sync_visible ORDER BY below DESC OFFSET 100 LIMIT 1)
)
SELECT pg_notify(@{channel}, current_schema()::text)

-- name: visible_unchanged
-- This cycle has looked and found no more: those who still wait ask again, and until then idle cycles are idle.
UPDATE sync_state SET visible = visible || jsonb_build_object('wanted', $1::bigint)

-- name: visible_position
UPDATE sync_state SET position = $1

-- name: visible_forget
-- Of another past nothing is known.
WITH marks AS (DELETE FROM sync_visible)
UPDATE sync_state SET visible = visible - 'below' - 'sources', visible_clean = '{}'
