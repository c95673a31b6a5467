-- The vector store has nothing of this collection any more. Entries get a new seq even if they were queued
-- already: a batch that is on its way must not take them along.
WITH lost AS (DELETE FROM sync_vector WHERE collection = $1)
INSERT INTO sync_outbox (collection, point_id) SELECT $1, id FROM @{target}
ON CONFLICT (collection, point_id) DO UPDATE SET
    seq = excluded.seq, attempts = 0, next_retry_at = NULL, error = NULL
