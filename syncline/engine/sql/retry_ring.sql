-- Rows that hand unique values on to each other may be refused in several batches, each for want of the others. Whoever
-- is refused now and the refused rows that it is entangled with are asked for together.
WITH RECURSIVE ring AS (
    SELECT row_id, key, held_by FROM sync_dead_letter
    WHERE table_name = $1 AND row_id = ANY ($2::uuid[]) AND held_by IS NOT NULL
    UNION
    SELECT d.row_id, d.key, d.held_by
    FROM ring r JOIN sync_dead_letter d
      ON d.table_name = $1 AND d.held_by IS NOT NULL AND (d.held_by = r.row_id OR d.row_id = r.held_by)
)
INSERT INTO sync_requeue (table_name, row_id, key, reason, queued_at)
SELECT $1, row_id, key, 'a value it wants changed hands',
       clock_timestamp() + row_number() OVER () * interval '1 microsecond'
FROM ring
WHERE EXISTS (SELECT FROM ring WHERE row_id <> ALL ($2::uuid[]))
ON CONFLICT DO NOTHING
