-- The last staged row in capture order: where the cursor goes when the batch was full.
SELECT s.sync_xid, ARRAY[@{key}] AS key FROM @{stage} s ORDER BY s.sync_xid DESC, @{key_descending} LIMIT 1
