-- Keyset order, and only transactions that can no longer add a row behind the cursor.
SELECT @{selection}
FROM @{source}
WHERE @{after_cursor} AND sync_xid < @{horizon}
ORDER BY sync_xid, @{key_order}
LIMIT @{limit}
