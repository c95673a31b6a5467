-- The first deleted key behind the cursor, by its bytes: as a text it could not be read.
SELECT d.sync_xid::text::bigint AS sync_xid, d.seq, @{source_bytes} AS source_table,
       ARRAY(SELECT @{part_bytes} FROM unnest(d.key) WITH ORDINALITY AS k (part, place) ORDER BY k.place) AS key,
       CASE d.source_table @{cases} ELSE true END AS alive
FROM sync_tombstone d
WHERE @{after_cursor} AND d.sync_xid < @{horizon}
ORDER BY d.sync_xid, d.seq
LIMIT 1
