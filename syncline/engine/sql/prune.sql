-- Up to $3 deleted keys behind the place ($1, $2) and before transaction $4, if they were kept for long enough; they are
-- looked at once, and told by the last that was. Up to where they were cleared away is remembered in the same statement, for
-- a graph-db that is put back to before it had read them.
WITH looked_at AS MATERIALIZED (
    SELECT sync_xid, seq FROM @{tombstones}
    WHERE (sync_xid, seq) > ($1::text::xid8, $2::bigint) AND sync_xid < $4::text::xid8
    ORDER BY sync_xid, seq LIMIT $3
), pruned AS (
    DELETE FROM @{tombstones} d USING looked_at o
    WHERE d.sync_xid = o.sync_xid AND d.seq = o.seq AND NOT (@{kept})
    RETURNING d.sync_xid
), newest AS (
    SELECT sync_xid::text::bigint + 1 AS below FROM pruned ORDER BY pruned.sync_xid DESC LIMIT 1
)@{noted}
SELECT (SELECT count(*) FROM pruned) AS pruned, sync_xid::text AS xid, seq
FROM looked_at ORDER BY looked_at.sync_xid DESC, seq DESC LIMIT 1
