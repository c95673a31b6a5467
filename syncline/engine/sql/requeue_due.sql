INSERT INTO sync_requeue (table_name, row_id, key, reason)
SELECT table_name, row_id, key, 'retry' FROM sync_dead_letter WHERE next_retry_at <= now()
ON CONFLICT DO NOTHING
