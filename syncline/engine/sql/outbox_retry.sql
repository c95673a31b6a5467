-- Refused points whose time has come are owed again, behind all others; every one of them if $2.
UPDATE sync_outbox
SET seq = DEFAULT, next_retry_at = NULL, error = NULL, attempts = CASE WHEN $2::boolean THEN 0 ELSE attempts END
WHERE collection = $1 AND error IS NOT NULL AND ($2::boolean OR next_retry_at <= now())
