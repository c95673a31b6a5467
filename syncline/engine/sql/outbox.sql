-- The vector outbox: points to write, sent, rejected, delayed.

-- name: outbox_due
-- Whether any work is due for a vector store. Each probe reads the first of its kind in an index, however
-- many entries wait; EXISTS would read all of them once the planner expects the condition to be common.
EXISTS (
    SELECT FROM unnest(ARRAY[@{collections}]) AS c (name)
    WHERE NOT EXISTS (SELECT FROM sync_vector_delay d WHERE d.collection = c.name AND d.next_retry_at > now())
      AND (
          (
              SELECT o.seq FROM sync_outbox o WHERE o.collection = c.name AND o.error IS NULL ORDER BY o.seq LIMIT 1
          ) IS NOT NULL
          OR (
              SELECT o.next_retry_at FROM sync_outbox o
              WHERE o.collection = c.name AND o.error IS NOT NULL AND o.next_retry_at IS NOT NULL
              ORDER BY o.next_retry_at LIMIT 1
          ) <= now()
          OR EXISTS (
              SELECT FROM sync_vector_embedding e
              WHERE e.collection = c.name AND e.embedding <> '@{embedding}' AND c.name NOT LIKE '%@@second'
          )
      )
)

-- name: outbox_state
-- One row per collection of the map: what it waits for, and whether anything is due. Counts nothing, and
-- reads the first of a kind instead of using EXISTS, so that it costs the same however many wait.
SELECT c.name AS collection, d.since IS NOT NULL AS delayed, coalesce(d.next_retry_at > now(), false) AS waits,
       (
           SELECT o.seq FROM sync_outbox o WHERE o.collection = c.name AND o.error IS NULL ORDER BY o.seq LIMIT 1
       ) IS NOT NULL AS owed,
       (
           SELECT o.point_id FROM sync_outbox o WHERE o.collection = c.name AND o.error IS NOT NULL
           ORDER BY o.next_retry_at LIMIT 1
       ) IS NOT NULL AS refused,
       coalesce((
           SELECT o.next_retry_at FROM sync_outbox o
           WHERE o.collection = c.name AND o.error IS NOT NULL AND o.next_retry_at IS NOT NULL
           ORDER BY o.next_retry_at LIMIT 1
       ) <= now(), false) AS due,
       e.embedding
FROM unnest($1::text[]) AS c (name)
LEFT JOIN sync_vector_delay d ON d.collection = c.name
LEFT JOIN sync_vector_embedding e ON e.collection = c.name

-- name: outbox_filled
SELECT (SELECT point_id FROM sync_vector WHERE collection = $1 ORDER BY point_id LIMIT 1) IS NOT NULL

-- name: outbox_lost
-- The vector store has lost this collection. Entries get a new seq even if they were queued already: a batch
-- in progress must not take them along.
WITH lost AS (DELETE FROM sync_vector WHERE collection = $1)
INSERT INTO sync_outbox (collection, point_id@{named}) SELECT $1, @{id} FROM @{target}
ON CONFLICT (collection, point_id) DO UPDATE SET
    seq = excluded.seq, attempts = 0, next_retry_at = NULL, error = NULL@{renamed}

-- name: outbox_embedding
INSERT INTO sync_vector_embedding (collection, embedding) VALUES ($1, $2)
ON CONFLICT (collection) DO UPDATE SET embedding = excluded.embedding

-- name: outbox_other
-- Vectors of another embedding service are not comparable with those of the present one.
INSERT INTO sync_outbox (collection, point_id)
SELECT collection, point_id FROM sync_vector WHERE collection = $1 AND embedding <> $2
ON CONFLICT (collection, point_id) DO NOTHING

-- name: outbox_resolve
-- Entries that were queued by their points alone know their rows; an empty text is of none.
UPDATE sync_outbox o SET target_id = coalesce(
    (SELECT f.text FROM (SELECT @{point} AS point_id, @{text} AS text FROM @{target}) f WHERE f.point_id = o.point_id), ''
)
WHERE o.collection = $1 AND o.target_id IS NULL

-- name: outbox_read
-- A row without a text has no point, like a deleted row. The projection is read from the current row, so a
-- point is never written with an older text. Entries are read once: those before $3 may be deleted but still
-- visible in an old snapshot. A batch ends with the entry that fills its bytes; only sizes are summed, so
-- nothing large is held for it. OFFSET 0 keeps each lookup a lookup by key: a queue's size changes too fast
-- for the planner's statistics, and a join planned for an empty table is a disaster on a full one.
SELECT o.point_id, o.seq, projected.text IS NOT NULL AS present, projected.text, projected.text_hash,
       @{payload} AS payload,
       v.text_hash IS NOT DISTINCT FROM projected.text_hash AND v.embedding IS NOT DISTINCT FROM $5 AS unchanged
FROM (
    SELECT sized.point_id, sized.seq@{kept}
    FROM (
        SELECT q.point_id, q.seq@{kept},
               coalesce(sum(s.size) OVER (ORDER BY q.seq ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS before
        FROM (
            SELECT point_id, seq@{kept} FROM sync_outbox
            WHERE collection = $1 AND error IS NULL AND seq > $3@{known} ORDER BY seq LIMIT $2
        ) AS q
        LEFT JOIN LATERAL (SELECT @{size} AS size FROM @{target} t WHERE t.@{id} = @{sized_row} OFFSET 0) AS s ON true
    ) AS sized
    WHERE sized.before < $4
    ORDER BY sized.seq
) AS o
LEFT JOIN LATERAL (SELECT * FROM @{projected} WHERE @{id} = @{row} OFFSET 0) AS t ON true
LEFT JOIN LATERAL (
    SELECT text_hash, embedding FROM sync_vector WHERE collection = $1 AND point_id = o.point_id OFFSET 0
) AS v ON true
LEFT JOIN LATERAL (
    SELECT p.text, p.fields, sha256(convert_to(p.text, 'UTF8')) AS text_hash
    FROM (SELECT @{text} AS text, @{fields} AS fields WHERE t.@{id} IS NOT NULL OFFSET 0) AS p
    OFFSET 0
) AS projected ON true
ORDER BY o.seq

-- name: outbox_mark_unconfirmed
-- About to be sent: until it is confirmed, it is unknown what the vector store has of these points. Their
-- entries stay, so each is sent again completely.
WITH gone AS (
    DELETE FROM sync_vector WHERE collection = $1 AND point_id = ANY ($2::uuid[])
)
UPDATE sync_vector SET text_hash = '' WHERE collection = $1 AND point_id = ANY ($3::uuid[]) AND text_hash <> ''

-- name: outbox_done
-- An entry that was queued again meanwhile has another seq, and stays. All entries read had no error; stating
-- that uses their index.
WITH done AS (
    DELETE FROM sync_outbox WHERE collection = $1 AND error IS NULL AND seq = ANY ($2::bigint[])
)
INSERT INTO sync_vector (collection, point_id, text_hash, embedding)
SELECT $1, e.point_id, e.text_hash, $5 FROM unnest($3::uuid[], $4::bytea[]) AS e (point_id, text_hash)
ON CONFLICT (collection, point_id) DO UPDATE SET text_hash = excluded.text_hash, embedding = excluded.embedding

-- name: outbox_refuse
-- Rejected points are retried separately. Without a next retry they are dead until their row changes.
UPDATE sync_outbox o
SET attempts = o.attempts + 1,
    next_retry_at = CASE
        WHEN o.attempts + 1 < $5::int THEN clock_timestamp() + make_interval(secs => $4::float8 * 2 ^ o.attempts)
    END,
    error = e.error
FROM unnest($2::bigint[], $3::text[]) AS e (seq, error)
WHERE o.collection = $1 AND o.error IS NULL AND o.seq = ANY ($2::bigint[]) AND o.seq = e.seq

-- name: outbox_retry
-- Rejected points whose retry is due are queued again, after all others; all of them if $2.
UPDATE sync_outbox
SET seq = DEFAULT, next_retry_at = NULL, error = NULL, attempts = CASE WHEN $2::boolean THEN 0 ELSE attempts END
WHERE collection = $1 AND error IS NOT NULL AND ($2::boolean OR next_retry_at <= now())

-- name: outbox_delay
-- $5: the end of a pause that the service asked for.
INSERT INTO sync_vector_delay AS d (collection, attempts, next_retry_at, error)
VALUES (
    $1, 1, greatest(clock_timestamp() + make_interval(secs => least($3::float8, $4::float8)), $5::timestamptz), $2
)
ON CONFLICT (collection) DO UPDATE SET
    attempts = d.attempts + 1,
    next_retry_at = greatest(
        clock_timestamp() + make_interval(secs => least($3::float8 * 2 ^ least(d.attempts, 60), $4::float8)),
        $5::timestamptz
    ),
    error = excluded.error
RETURNING attempts

-- name: outbox_resume
DELETE FROM sync_vector_delay WHERE collection = $1 RETURNING since

-- name: outbox_left
-- Triggers keep these counts; one reason for a rejection is found by the index of entries that have one.
SELECT c.name AS collection, d.since, d.next_retry_at, d.error,
       coalesce((
           SELECT entries FROM sync_count k WHERE k.counted = 'sync_outbox' AND k.name = c.name AND NOT k.refused
       ), 0) AS owed,
       coalesce((
           SELECT entries FROM sync_count k WHERE k.counted = 'sync_outbox' AND k.name = c.name AND k.refused
       ), 0) AS refused,
       (
           SELECT o.error FROM sync_outbox o WHERE o.collection = c.name AND o.error IS NOT NULL
           ORDER BY o.next_retry_at LIMIT 1
       ) AS refusal
FROM unnest($1::text[]) WITH ORDINALITY AS c (name, place)
LEFT JOIN sync_vector_delay d ON d.collection = c.name
ORDER BY c.place
