-- The rows of one tenant, where graphs share a source.

-- name: tenant_rows
(SELECT * FROM @{source} WHERE @{condition}) AS @{name}

-- name: tenant_tombstones
(
    SELECT tableoid, * FROM @{tombstones} WHERE tenant COLLATE "C" = ''
    UNION ALL
    SELECT tableoid, * FROM @{tombstones} WHERE tenant COLLATE "C" = @{tenant}
)

-- name: tenant_position_known
-- As `position_known`, and up to where any reader of the same tenant has pruned.
(
    SELECT json_build_array(
        p.branch, p.number, p.tokens[p.number - @{number} + 1],
        (
            SELECT q.cleared_below FROM @{positions} q
            WHERE q.tenant = @{tenant} AND q.cleared_below <= (SELECT next_xid FROM moment)::text::bigint
            ORDER BY q.cleared_below DESC LIMIT 1
        ),
        p.written_at < @{recovered}
    )::text
    FROM (SELECT) AS one LEFT JOIN @{positions} p ON p.reader = @{reader}
)

-- name: tenant_old_tombstones
-- As `old_tombstones`, of the tenant's own keys: the others may have other readers.
coalesce((
    SELECT CASE WHEN sync_xid >= (SELECT horizon FROM moment) OR @{kept} OR pg_is_in_recovery() THEN 0
                WHEN has_table_privilege(d.tableoid, 'DELETE') THEN 1
                ELSE 2 END
    FROM @{tombstones} d WHERE d.tenant COLLATE "C" = @{tenant} ORDER BY sync_xid, seq LIMIT 1
), 0)

-- name: tenant_prune_noted
, noted AS (
    UPDATE ONLY @{positions} SET cleared_below = greatest(cleared_below, n.below), tenant = @{tenant}
    FROM newest n WHERE reader = $5::text::uuid
)
