-- The action and its audit are one statement; what touches nothing leaves no trace. A retry that an earlier cycle
-- had no time for goes too; one that a cycle has in hand now is left to it, because to wait here could deadlock.
WITH chosen AS (
    DELETE FROM sync_dead_letter
    WHERE ($1::text IS NULL OR table_name = $1)
      AND ($7::uuid[] IS NULL OR row_id = ANY ($7))
      AND ($3::text IS NULL OR fingerprint = $3)
    RETURNING table_name, row_id
), queued AS (
    SELECT q.table_name, q.row_id FROM sync_requeue q JOIN chosen c USING (table_name, row_id)
    WHERE q.reason = 'retry'
    FOR UPDATE OF q SKIP LOCKED
), forgotten AS (
    DELETE FROM sync_requeue q USING queued WHERE q.table_name = queued.table_name AND q.row_id = queued.row_id
)
INSERT INTO sync_audit (who, action, why, table_name, key, fingerprint, run_id, starter, rows)
SELECT $4, 'discard', $5, $1, $2, $3, $6, $8, count(*) FROM chosen HAVING count(*) > 0
RETURNING rows
