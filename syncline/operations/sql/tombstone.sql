-- The last time that the key was deleted.
SELECT seq, sync_xid::text::bigint AS version, deleted_at
FROM sync_tombstone
WHERE source_table = $1 AND key = ARRAY[@{key}]
ORDER BY sync_xid DESC, seq DESC
LIMIT 1
