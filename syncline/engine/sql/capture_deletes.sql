-- Deleted keys in order. One that is there again is not deleted: its row comes, or came, with the rows. Each is looked up
-- alone: for EXISTS the planner may read all keys of a table first.
SELECT d.sync_xid::text::bigint AS sync_xid, d.seq, d.source_table, d.key, CASE d.source_table @{cases} ELSE true END AS alive
FROM sync_tombstone d
WHERE @{after_cursor} AND d.sync_xid < @{horizon}
ORDER BY d.sync_xid, d.seq
LIMIT @{limit}
