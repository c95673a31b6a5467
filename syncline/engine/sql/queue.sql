, queued AS (
    INSERT INTO sync_outbox (collection, point_id) SELECT '@{collection}', id FROM changed
    ON CONFLICT (collection, point_id) DO UPDATE SET
        seq = excluded.seq, queued_at = excluded.queued_at, attempts = 0, next_retry_at = NULL, error = NULL
)
