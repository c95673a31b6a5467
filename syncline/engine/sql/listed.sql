-- The list of rows: key and target id of each row id, for tables whose target does not tell them.

-- name: list_reference
-- The listed ids of the rows that a reference names.
UPDATE @{stage} s SET @{reference_id} = @{id}
FROM sync_row WHERE sync_row.table_name = '@{parent_name}' AND sync_row.row_id = @{waits_for}

-- name: list_reference_beside
-- Those of rows of this batch, which may be listed only at its end, or under another id.
UPDATE @{stage} s SET @{reference_id} = o.sync_id FROM @{stage} o WHERE o.sync_present AND o.sync_row_id = @{waits_for}

-- name: list_known
UPDATE @{stage} s SET sync_id = @{id} FROM sync_row WHERE sync_row.table_name = '@{table}' AND sync_row.row_id = s.sync_row_id

-- name: list_natural
-- Rows that stand in the target by their natural key, and are in no list, keep their ids.
UPDATE @{stage} s SET sync_id = t.@{id} FROM @{target} t
WHERE s.sync_present AND s.sync_id IS NULL AND @{same} AND NOT @{is_ours}

-- name: list_default
-- How the target's id column is filled.
SELECT CASE WHEN a.attidentity <> ''
    THEN format('nextval(%L::regclass)', pg_get_serial_sequence($1, a.attname)) ELSE pg_get_expr(d.adbin, d.adrelid) END
FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = $1::text::regclass AND a.attname = $2

-- name: list_assigned
UPDATE @{stage} s SET sync_id = @{default} WHERE s.sync_present AND s.sync_id IS NULL

-- name: list_moved
-- Rows under an id that their source has no longer are removed; they return under the new one with this batch.
-- One whose new id is another's, which keeps it, stays as it is.
INSERT INTO pg_temp.sync_gone (table_name, row_id, key, again)
SELECT '@{table}', s.sync_row_id, ARRAY[@{key}], NULL
FROM @{stage} s JOIN sync_row l ON l.table_name = '@{table}' AND l.row_id = s.sync_row_id
WHERE s.sync_present AND l.target_id <> @{id} AND NOT EXISTS (
    SELECT FROM sync_row o
    WHERE o.table_name = '@{table}' AND o.target_id = @{id} AND o.row_id <> s.sync_row_id
      AND NOT EXISTS (SELECT FROM @{stage} w WHERE w.sync_row_id = o.row_id)
      AND NOT EXISTS (SELECT FROM pg_temp.sync_gone g WHERE g.table_name = '@{table}' AND g.row_id = o.row_id)
)
ON CONFLICT DO NOTHING

-- name: list_unclear
-- Rows without an id, and rows whose id is another key's, by the list or in this batch, leave the batch.
WITH unclear AS (
    SELECT s.sync_row_id, NULL::uuid AS held_by, true AS lacks FROM @{stage} s WHERE s.sync_present AND s.@{staged} IS NULL
    UNION ALL
    SELECT s.sync_row_id, l.row_id, false
    FROM @{stage} s JOIN sync_row l ON l.table_name = '@{table}' AND l.target_id = @{id}
    WHERE s.sync_present AND l.row_id <> s.sync_row_id
    UNION ALL
    SELECT d.sync_row_id, d.first, false
    FROM (
        SELECT s.sync_row_id, s.@{staged} AS id, first_value(s.sync_row_id) OVER (
            PARTITION BY s.@{staged} ORDER BY l.row_id IS NULL, s.sync_row_id
        ) AS first
        FROM @{stage} s
        LEFT JOIN sync_row l ON l.table_name = '@{table}' AND l.row_id = s.sync_row_id AND l.target_id = @{id}
        WHERE s.sync_present
    ) d
    WHERE d.id IS NOT NULL AND d.sync_row_id <> d.first
), one AS (
    SELECT DISTINCT ON (sync_row_id) * FROM unclear ORDER BY sync_row_id, held_by
)
DELETE FROM @{stage} s USING one WHERE s.sync_row_id = one.sync_row_id
RETURNING s.sync_row_id AS row_id, to_json(ARRAY[@{key}])::text AS key, s.sync_xid, one.held_by, one.lacks

-- name: list_unmoved
-- Rows that could not be removed under their old id.
DELETE FROM @{stage} s USING sync_row l
WHERE l.table_name = '@{table}' AND l.row_id = s.sync_row_id AND s.sync_present AND l.target_id <> @{id}

-- name: list_again
-- Listed rows have a new version, or another id by another map.
UPDATE sync_row l SET @{changes} FROM @{stage} s
WHERE s.sync_present AND l.table_name = '@{table}' AND l.row_id = s.sync_row_id AND (@{differs})

-- name: list_landed
INSERT INTO sync_row (table_name, row_id, key, target_id@{stamps})
SELECT '@{table}', s.sync_row_id, ARRAY[@{key}], @{id}@{stamped}
FROM @{stage} s
WHERE s.sync_present AND NOT EXISTS (
    SELECT FROM sync_row o WHERE o.table_name = '@{table}' AND o.row_id = s.sync_row_id
)
ORDER BY s.sync_row_id

-- name: list_remove
DELETE FROM sync_row l USING pg_temp.sync_gone g WHERE l.table_name = g.table_name AND l.row_id = g.row_id

-- name: list_keys
-- The list leaves, and the target tells the keys again: nothing else does until each row has been read again.
UPDATE @{target} t SET @{changes} FROM sync_row
WHERE sync_row.table_name = '@{table}' AND coalesce(sync_row.target_id, sync_row.row_id::text) COLLATE "C" = @{id}
