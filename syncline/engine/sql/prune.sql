-- A week of deleted keys is kept, for whoever asks what became of a row. The oldest come first, a few at a time. Up to where
-- they were cleared away is remembered in the same transaction, for a graph-db that is put back to before it had read them.
WITH cleared AS (
    DELETE FROM sync_tombstone
    WHERE (sync_xid, seq) IN (SELECT sync_xid, seq FROM sync_tombstone ORDER BY sync_xid, seq LIMIT 50000)
      AND sync_xid < $1::text::xid8 AND deleted_at < now() - interval '7 days'
    RETURNING sync_xid
), newest AS (
    SELECT sync_xid::text::bigint + 1 AS below FROM cleared ORDER BY sync_xid DESC LIMIT 1
)
@{noted}
