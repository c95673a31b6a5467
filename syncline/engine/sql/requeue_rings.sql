-- With a row that is asked for come the refused ones that it is entangled with by unique values, as one set.
WITH RECURSIVE ring AS (
    SELECT q.row_id, d.key, d.held_by
    FROM sync_requeue q LEFT JOIN sync_dead_letter d ON d.table_name = q.table_name AND d.row_id = q.row_id
    WHERE q.table_name = $1
      AND EXISTS (SELECT FROM sync_dead_letter h WHERE h.table_name = $1 AND h.held_by IS NOT NULL)
    UNION
    SELECT d.row_id, d.key, d.held_by
    FROM ring r JOIN sync_dead_letter d ON d.table_name = $1 AND (d.held_by = r.row_id OR d.row_id = r.held_by)
)
INSERT INTO sync_requeue (table_name, row_id, key, reason, queued_at)
SELECT $1, row_id, key, 'a value it wants changed hands',
       clock_timestamp() + row_number() OVER () * interval '1 microsecond'
FROM ring WHERE key IS NOT NULL
ON CONFLICT DO NOTHING
