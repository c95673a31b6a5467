-- What a lingering cycle asks while it waits for the next change.

-- name: linger_snapshot
-- Has any transaction written since? If not, nothing is there to be looked for.
SELECT @{horizon}::text::bigint AS xmin, pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS xmax

-- name: linger_newer
-- Whether a table shows rows from transaction $1 on, and below which transaction all have ended.
SELECT @{horizon}::text::bigint AS below, @{shown} AS newer

-- name: linger_wanted
-- How often somebody has waited for more to be visible.
SELECT coalesce(pg_sequence_last_value(to_regclass('@{schema}.sync_wanted')), 0)
