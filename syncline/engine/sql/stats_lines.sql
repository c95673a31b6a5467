INSERT INTO @{stats} (@{owner}) SELECT DISTINCT id FROM pg_temp.sync_touched WHERE counted = '@{lines}'
ON CONFLICT DO NOTHING
