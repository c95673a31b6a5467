-- A week of deleted keys is kept, for whoever asks what became of a row. The oldest come first, a few at a time.
DELETE FROM ONLY @{tombstones}
WHERE (sync_xid, seq) IN (SELECT sync_xid, seq FROM ONLY @{tombstones} ORDER BY sync_xid, seq LIMIT 50000)
  AND sync_xid < $1::text::xid8 AND deleted_at < now() - interval '7 days'
