SELECT coalesce((SELECT xid FROM @{schema}.sync_cursor WHERE table_name = '@{deletes}'), 0)
