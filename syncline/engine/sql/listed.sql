-- The list of rows: key and target id of each row id, for tables whose target does not tell them.

-- name: list_references
-- The listed ids of the rows that references name, and those that rows keep. Each is found by the index: without
-- statistics, or with those of before the table's rows came, a join would read the table's whole list, or compare every
-- pair.
UPDATE @{stage} s SET @{changes} WHERE @{named}

-- name: list_reference
-- The same of one reference of many rows: each of its values is looked up once, however many rows have it.
UPDATE @{stage} s SET @{reference_id} = f.id FROM @{found} f WHERE f.value = s.@{reference}

-- name: list_values
-- In the order of the list's index, so that neighbours are found on one page. Not by one scan for all of them, which would
-- take half the time: before version 17, and with statistics of before the rows came, the planner reads the table's whole list.
(
    SELECT n.value, @{id} AS id
    FROM (SELECT v.value, @{row_id} AS row_id FROM (SELECT DISTINCT s.@{reference} AS value FROM @{stage} s) v ORDER BY 2) n OFFSET 0
)

-- name: list_reference_beside
-- Those of rows of this batch, which may be listed only at its end, or under another id.
UPDATE @{stage} s SET @{reference_id} = o.sync_id FROM @{stage} o WHERE o.sync_present AND o.sync_row_id = @{waits_for}

-- name: list_kept
-- A listed row keeps its id. Each is found by the index, whatever the planner thinks of the list.
UPDATE @{stage} s SET sync_id = @{kept}
FROM (
    SELECT s.ctid AS at, l.target_id
    FROM @{stage} s CROSS JOIN LATERAL (
        SELECT l.target_id FROM sync_row l WHERE l.table_name = '@{table}' AND l.row_id = s.sync_row_id OFFSET 0
    ) l
) o
WHERE s.ctid = o.at

-- name: list_known
-- One that stands in the target by its natural key, and is in no list, likewise; others get theirs.
UPDATE @{stage} s SET sync_id = @{made} WHERE s.sync_present AND s.sync_id IS NULL

-- name: list_any
SELECT (SELECT row_id FROM sync_row WHERE table_name = '@{table}' ORDER BY table_name, row_id LIMIT 1) IS NOT NULL

-- name: list_first
-- All of this at once: what rows refer to, each value looked up once; and of rows of which none is listed, the id of each.
UPDATE @{stage} s SET @{changes}
FROM (SELECT s.ctid AS at, @{found} FROM @{stage} s @{joins} OFFSET 0) r WHERE s.ctid = r.at

-- name: list_made
, sync_id = CASE WHEN s.sync_present THEN @{made} END

-- name: list_many
-- The same where some are listed: those keep their ids. OFFSET 0: each is found by the index. Whether one was not listed.
WITH identified AS (
    UPDATE @{stage} s SET @{changes}, sync_id = coalesce(r.sync_kept@{natural}, CASE WHEN s.sync_present THEN @{made} END)
    FROM (
        SELECT s.ctid AS at, @{found}, k.id AS sync_kept@{natural_found}
        FROM @{stage} s @{joins}
        LEFT JOIN LATERAL (
            SELECT @{kept} AS id FROM sync_row l WHERE l.table_name = '@{table}' AND l.row_id = s.sync_row_id OFFSET 0
        ) k ON true@{natural_joined} OFFSET 0
    ) r WHERE s.ctid = r.at
    RETURNING s.sync_present AND r.sync_kept IS NULL AS unlisted
)
SELECT coalesce(bool_or(unlisted), false) FROM identified

-- name: list_many_natural
-- Whose it is, is asked for each that is found (the inner SELECT), not of all the list.
 LEFT JOIN LATERAL (
            SELECT t.@{id} AS id FROM @{target} t WHERE k.id IS NULL AND s.sync_present AND @{same} AND NOT (SELECT @{is_ours}) LIMIT 1
        ) n ON true

-- name: list_first_natural
-- Where nothing stands in the target, nothing is looked up there.
coalesce(CASE WHEN (SELECT true FROM @{target} LIMIT 1) THEN (SELECT t.@{id} FROM @{target} t WHERE @{same} LIMIT 1) END, @{made})

-- name: list_natural
coalesce((SELECT t.@{id} FROM @{target} t WHERE @{same} AND NOT @{is_ours} LIMIT 1), @{made})

-- name: list_default
-- How the target's id column is filled.
SELECT CASE WHEN a.attidentity <> ''
    THEN format('nextval(%L::regclass)', pg_get_serial_sequence($1, a.attname)) ELSE pg_get_expr(d.adbin, d.adrelid) END
FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = $1::text::regclass AND a.attname = $2

-- name: list_elsewhere
-- Whether a row is not listed under its id, and whether one is under another. While none is, no two rows can have
-- one id, and none moves.
SELECT coalesce(bool_or((l.target_id = @{id}) IS NOT TRUE), false) AS elsewhere,
       coalesce(bool_or(l.target_id <> @{id}), false) AS moved
FROM @{stage} s LEFT JOIN LATERAL (
    SELECT l.target_id FROM sync_row l WHERE l.table_name = '@{table}' AND l.row_id = s.sync_row_id OFFSET 0
) l ON true
WHERE s.sync_present

-- name: list_shared
-- The same where the target tells the keys: whether another key's row stands under the id of one, or two have one id.
SELECT EXISTS (SELECT FROM @{stage} s CROSS JOIN LATERAL (@{holder} OFFSET 0) l WHERE s.sync_present AND l.row_id <> s.sync_row_id)
    OR EXISTS (SELECT FROM @{stage} s WHERE s.sync_present GROUP BY s.@{staged} HAVING count(*) > 1) AS elsewhere, false AS moved

-- name: list_holder
SELECT l.row_id FROM sync_row l WHERE l.table_name || '' = '@{table}' AND l.target_id = @{id}

-- name: list_moved
-- Rows under an id that their source has no longer are removed; they return under the new one with this batch.
-- One whose new id is another's, which keeps it, stays as it is. OFFSET 0: each row is found by the index.
INSERT INTO pg_temp.sync_leaving (table_name, row_id, key, again)
SELECT '@{table}', s.sync_row_id, ARRAY[@{key}], NULL
FROM @{stage} s
CROSS JOIN LATERAL (
    SELECT l.target_id FROM sync_row l WHERE l.table_name = '@{table}' AND l.row_id = s.sync_row_id OFFSET 0
) l
LEFT JOIN LATERAL (
    SELECT l.row_id FROM sync_row l WHERE l.table_name || '' = '@{table}' AND l.target_id = @{id} OFFSET 0
) o ON true
WHERE s.sync_present AND l.target_id <> @{id} AND (
    o.row_id IS NULL
    OR EXISTS (SELECT FROM @{stage} w WHERE w.sync_row_id = o.row_id)
    OR EXISTS (SELECT FROM pg_temp.sync_leaving g WHERE g.table_name = '@{table}' AND g.row_id = o.row_id)
)
ON CONFLICT DO NOTHING

-- name: list_unclear
-- Rows without an id, and rows whose id is another key's, by the list or in this batch, leave the batch.
WITH found AS (
    SELECT s.sync_row_id, s.@{staged} AS id, l.row_id AS holder, first_value(s.sync_row_id) OVER (
        PARTITION BY s.@{staged} ORDER BY l.row_id IS DISTINCT FROM s.sync_row_id, s.sync_row_id
    ) AS first
    FROM @{stage} s LEFT JOIN LATERAL (
        @{holder} OFFSET 0
    ) l ON true
    WHERE s.sync_present
), unclear AS (
    SELECT sync_row_id, id IS NULL AS lacks,
           CASE WHEN id IS NOT NULL THEN CASE WHEN holder <> sync_row_id THEN holder ELSE first END END AS held_by
    FROM found WHERE id IS NULL OR holder <> sync_row_id OR first <> sync_row_id
)
DELETE FROM @{stage} s USING unclear u WHERE s.sync_row_id = u.sync_row_id
RETURNING s.sync_row_id AS row_id, to_json(ARRAY[@{key}])::text AS key, s.sync_xid, u.held_by, u.lacks

-- name: list_unmoved
-- Rows that could not be removed under their old id.
DELETE FROM @{stage} s
USING (
    SELECT s.ctid AS at
    FROM @{stage} s CROSS JOIN LATERAL (
        SELECT l.target_id FROM sync_row l WHERE l.table_name = '@{table}' AND l.row_id = s.sync_row_id OFFSET 0
    ) l
    WHERE s.sync_present AND l.target_id <> @{id}
) o
WHERE s.ctid = o.at

-- name: list_nameless
SELECT EXISTS (SELECT FROM @{stage} s WHERE s.sync_present AND s.@{staged} IS NULL)

-- name: list_new
-- Rows of a batch that are not listed, which costs half of what asking for each does. The list refuses the batch
-- if one is, or if its id is another's.
INSERT INTO sync_row (table_name, row_id, key, target_id@{stamps})
SELECT '@{table}', s.sync_row_id, ARRAY[@{key}], @{id}@{stamped}
FROM @{stage} s WHERE s.sync_present ORDER BY s.sync_row_id

-- name: list_rejected
DELETE FROM sync_row WHERE table_name = $1 AND row_id = ANY ($2::uuid[])

-- name: list_landed
-- Rows of the batch are listed; those that are have a new version, or another id by another map.
INSERT INTO sync_row AS l (table_name, row_id, key, target_id@{stamps})
SELECT '@{table}', s.sync_row_id, ARRAY[@{key}], @{id}@{stamped}
FROM @{stage} s WHERE s.sync_present ORDER BY s.sync_row_id
ON CONFLICT (table_name, row_id) DO @{again}

-- name: list_again
UPDATE SET @{changes} WHERE @{differs}

-- name: list_remove
-- Where its place is not known, each row is found by the index here, too.
DELETE FROM sync_row WHERE ctid = ANY (ARRAY(
    SELECT coalesce(g.place, (
        SELECT l.ctid FROM sync_row l WHERE l.table_name = g.table_name AND l.row_id = g.row_id OFFSET 0
    ))
    FROM pg_temp.sync_leaving g WHERE g.table_name = ANY (ARRAY[@{tables}]::text[])
))

-- name: list_keys
-- The list leaves, and the target tells the keys again: nothing else does until each row has been read again.
UPDATE @{target} t SET @{changes} FROM sync_row
WHERE sync_row.table_name = '@{table}' AND coalesce(sync_row.target_id, sync_row.row_id::text) COLLATE "C" = @{id}

-- name: standing_told
-- Whether a target has the columns that told the keys of its rows.
SELECT count(*) = cardinality($2::text[]) FROM pg_attribute
WHERE attrelid = to_regclass($1) AND attname = ANY ($2::text[]) AND NOT attisdropped

-- name: standing_any
SELECT EXISTS (SELECT FROM @{target})

-- name: list_standing
-- What stands in the target keeps its id from now on: it is listed before any of it is read again.
INSERT INTO sync_row (table_name, row_id, key, target_id)
SELECT '@{table}', @{row_id}, ARRAY[@{key}], @{id} FROM @{target} t WHERE array_position(ARRAY[@{key}], NULL) IS NULL@{also}
ON CONFLICT DO NOTHING

-- name: list_marked
-- Marked rows of a table whose rows are listed from now on: what refers to them finds them there.
INSERT INTO sync_row (table_name, row_id, key, target_id)
SELECT '@{table}', k.row_id, k.key, @{id}
FROM sync_kept k JOIN @{target} t ON @{row} = k.target_key[1]::@{type}
WHERE k.table_name = '@{table}' AND NOT k.stub
ON CONFLICT DO NOTHING

-- name: list_points
-- Rows that no list had: those that the merge has written are queued already.
INSERT INTO sync_outbox (collection, point_id@{named})
SELECT '@{collection}', @{point}@{text}
FROM @{stage} s
WHERE s.sync_present AND NOT EXISTS (SELECT FROM sync_row l WHERE l.table_name = '@{table}' AND l.row_id = s.sync_row_id)
ON CONFLICT DO NOTHING
