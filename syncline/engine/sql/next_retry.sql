(SELECT next_retry_at FROM sync_dead_letter WHERE next_retry_at IS NOT NULL ORDER BY next_retry_at LIMIT 1)
