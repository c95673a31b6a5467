-- Request what differs, with an audit record.

-- name: audited
SELECT action, table_name, number, rows FROM sync_audit WHERE run_id = $1

-- name: audit
INSERT INTO sync_audit (who, action, why, table_name, rows, run_id, starter)
VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING number

-- name: audit_more
UPDATE sync_audit SET rows = rows + $2 WHERE number = $1

-- name: requeue
-- Rows requested already are in progress. Table and rows are recorded in the audit in the same statement.
WITH asked AS (
    INSERT INTO sync_requeue (table_name, row_id, key, reason)
    SELECT $1, d.row_id, ARRAY(SELECT jsonb_array_elements_text(d.key::jsonb)), 'verify'
    FROM unnest($2::uuid[], $3::text[]) AS d (row_id, key)
    ON CONFLICT DO NOTHING
    RETURNING 1
)
SELECT count(*) FROM asked

-- name: withheld_there
SELECT to_regclass($1 || '.sync_absent') IS NOT NULL

-- name: release_withheld
-- An operator agrees that what a comparison has found gone, and was too much to remove unasked, is to leave.
WITH agreed AS (
    UPDATE sync_comparison SET withheld = NULL, part = 'state', after = NULL
    WHERE table_name = $1 AND withheld IS NOT NULL RETURNING table_name
), gone AS (
    DELETE FROM sync_absent a USING agreed g WHERE a.table_name = g.table_name RETURNING a.row_id, a.key
), asked AS (
    INSERT INTO sync_requeue (table_name, row_id, key, reason) SELECT $1, row_id, key, 'verify' FROM gone
    ON CONFLICT DO NOTHING
    RETURNING 1
)
SELECT count(*) FROM asked

-- name: requeue_points
-- Without the state of its vector a point is embedded and written again; one whose row is gone is deleted.
WITH forgotten AS (
    DELETE FROM sync_vector WHERE collection = $1 AND point_id = ANY ($3::uuid[])
), asked AS (
    INSERT INTO sync_outbox (collection, point_id) SELECT $1, d.id FROM unnest($2::uuid[]) AS d (id)
    ON CONFLICT (collection, point_id) DO UPDATE SET
        seq = excluded.seq, queued_at = excluded.queued_at, attempts = 0, next_retry_at = NULL, error = NULL
    RETURNING 1
)
SELECT count(*) FROM asked
