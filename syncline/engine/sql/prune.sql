-- Up to $3 deleted keys behind the place ($1, $2) and before transaction $4, if they were kept for long enough; they are
-- looked at once, and told by the last that was.
WITH looked_at AS MATERIALIZED (
    SELECT sync_xid, seq FROM @{tombstones}
    WHERE (sync_xid, seq) > ($1::text::xid8, $2::bigint) AND sync_xid < $4::text::xid8
    ORDER BY sync_xid, seq LIMIT $3
), pruned AS (
    DELETE FROM @{tombstones} d USING looked_at o
    WHERE d.sync_xid = o.sync_xid AND d.seq = o.seq AND NOT (@{kept})
    RETURNING 1
)
SELECT (SELECT count(*) FROM pruned) AS pruned, sync_xid::text AS xid, seq
FROM looked_at ORDER BY looked_at.sync_xid DESC, seq DESC LIMIT 1
