-- Checkpoints: note what is read after them, take them, and go back to one.

-- name: recent_rows
-- The keys of a batch, before anything leaves the stage: in the statement that comes first.
WITH noted AS (
    INSERT INTO sync_recent (table_name, number, keys)
    SELECT '@{table}', count(*), to_jsonb(array_agg(ARRAY[@{key}])) FROM @{stage} s HAVING count(*) > 0
)

-- name: recent_asked
-- The keys of rows that were requested: whether they were there or not was read too.
INSERT INTO sync_recent (table_name, number, keys)
SELECT $1, count(*), jsonb_agg(to_jsonb(key)) FROM sync_requeue WHERE table_name = $1 AND row_id = ANY ($2::uuid[])
HAVING count(*) > 0

-- name: recent_deletes
-- The deleted keys of a batch, those too that were there again when it was read. What lacks parts of a key is no row.
INSERT INTO sync_recent (table_name, number, keys)
SELECT m.name, count(*), to_jsonb(array_agg(d.key))
FROM @{stage} d JOIN (VALUES @{tables}) AS m (name, source, parts) ON m.source = d.source_table AND m.parts = cardinality(d.key)
GROUP BY m.name

-- name: checkpoints_forget
-- Checkpoints are worth nothing any longer: what was read since is not known in full.
WITH checkpoints AS (DELETE FROM sync_checkpoint), recent AS (DELETE FROM sync_recent)
UPDATE sync_state SET checkpoint_at = NULL WHERE checkpoint_at IS NOT NULL

-- name: checkpoint_take
-- The cursors and the last noted batch as they were before the token of run $1 was left. Of the earlier ones, of twice the
-- age, half as many a second are kept: of each half octave of age the oldest, which will be the first of the next one. None
-- before which more than $4 keys were read, or older than deleted keys are kept; and nothing that was read before them all.
WITH before AS (
    SELECT fence, seq, keys FROM sync_checkpoint ORDER BY fence DESC LIMIT 1
), taken AS (
    INSERT INTO sync_checkpoint (fence, seq, keys, cursors)
    SELECT $1, $2, coalesce((SELECT keys FROM before), 0) + coalesce((
               SELECT sum(r.number) FROM sync_recent r
               WHERE r.seq > coalesce((SELECT seq FROM before), 0) AND r.seq <= $2
           ), 0), $3::text::jsonb
    RETURNING at, keys
), thinned AS (
    DELETE FROM sync_checkpoint c USING (
        SELECT fence, at, keys, first_value(fence) OVER (PARTITION BY age_step ORDER BY fence) AS kept
        FROM (
            SELECT fence, at, keys,
                   floor(2 * log(2, greatest(1, extract(epoch FROM clock_timestamp() - at)::numeric))) AS age_step
            FROM sync_checkpoint
        ) AS a
    ) AS o, taken t
    WHERE c.fence = o.fence
      AND (o.kept <> o.fence OR t.keys - o.keys > $4 OR o.at < t.at - interval '7 days')
), outdated AS (
    DELETE FROM sync_recent WHERE seq <= coalesce((SELECT min(seq) FROM sync_checkpoint), $2)
)
UPDATE sync_state SET checkpoint_at = (SELECT at FROM taken)

-- name: position_tokens
SELECT branch::text, number, tokens::text[] AS tokens FROM @{positions} WHERE reader = $1::text::uuid

-- name: checkpoint_common
-- The newest checkpoint that was taken before, or by, the last run whose token the write-db has. Of the last runs:
-- the list is as long as the graph is old.
SELECT c.fence, c.seq, c.at, c.cursors::text AS cursors
FROM sync_checkpoint c
WHERE c.fence <= (
    SELECT max(r.fence)
    FROM (SELECT fence, position FROM sync_run ORDER BY fence DESC LIMIT 100000) AS r
    WHERE r.position = ANY ($1::text[])
)
ORDER BY c.fence DESC LIMIT 1

-- name: recent_numbers
-- How many keys of each table were read after a checkpoint.
SELECT r.table_name, count(DISTINCT j.key) AS number
FROM sync_recent r CROSS JOIN LATERAL jsonb_array_elements(r.keys) AS j (key)
WHERE r.seq > $1 GROUP BY r.table_name

-- name: recent_keys
SELECT DISTINCT ARRAY(SELECT jsonb_array_elements_text(j.key)) AS key
FROM sync_recent r CROSS JOIN LATERAL jsonb_array_elements(r.keys) AS j (key)
WHERE r.seq > $1 AND r.table_name = $2

-- name: target_rows
SELECT count(*) FROM @{target}

-- name: rewind_keys
-- What was read after the checkpoint is requested by key.
INSERT INTO sync_requeue (table_name, row_id, key, reason)
SELECT DISTINCT ON (k.table_name, k.row_id) k.table_name, k.row_id, k.key, 'the write-db has lost what was read of it'
FROM (
    SELECT r.table_name, syncline.row_uuid(e.key) AS row_id, e.key
    FROM sync_recent r
    CROSS JOIN LATERAL jsonb_array_elements(r.keys) AS j (key)
    CROSS JOIN LATERAL (SELECT ARRAY(SELECT jsonb_array_elements_text(j.key)) AS key) AS e
    WHERE r.seq > $1 AND r.table_name = ANY ($2::text[])
) AS k
ON CONFLICT DO NOTHING

-- name: rewind_letters
-- Dead letters of what was read after it: of versions from its cursors on, and of removals.
INSERT INTO sync_requeue (table_name, row_id, key, reason)
SELECT table_name, row_id, key, 'the write-db has lost what was read of it'
FROM sync_dead_letter WHERE (version >= $1 OR version = 0) AND table_name = ANY ($2::text[])
ON CONFLICT DO NOTHING

-- name: rewind_cursor
INSERT INTO sync_cursor (table_name, xid, key) VALUES ($1, $2, $3::text[])
ON CONFLICT (table_name) DO UPDATE SET xid = excluded.xid, key = excluded.key

-- name: rewind_checkpoints
DELETE FROM sync_checkpoint WHERE fence > $1
