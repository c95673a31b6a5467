-- Staged rows of a batch, in temporary tables of the connection.

-- name: stage_create
-- Private to the connection and emptied at every commit: no catalog churn per cycle, nothing left after a
-- crash.
CREATE TEMP TABLE IF NOT EXISTS @{stage} (@{definitions}) ON COMMIT DELETE ROWS

-- name: stage_drop
-- After many rows: each stage that a session keeps costs every transaction with one a part of a millisecond, in which
-- Postgres empties it, its TOAST table and that one's index.
DROP TABLE IF EXISTS @{stage}

-- name: stage_of_other_types
-- Types by these names may be those of another graph's schema, or have been made again.
DO $stage$ BEGIN
    IF EXISTS (
        SELECT FROM pg_attribute a JOIN (VALUES @{types}) AS own (name, type) ON a.attname = own.name
        WHERE a.attrelid = to_regclass('@{name}') AND a.atttypid IS DISTINCT FROM to_regtype(own.type)
    ) THEN
        DROP TABLE @{stage};
    END IF;
END $stage$

-- name: stage_last
-- The last staged row in capture order: the new cursor when the batch was full.
SELECT s.sync_xid, ARRAY[@{key}] AS key FROM @{stage} s ORDER BY s.sync_xid DESC, @{key_descending} LIMIT 1

-- name: stage_released
-- Rows whose parent has arrived return to the stage. They leave sync_parked_row only when they are applied.
INSERT INTO @{stage} (@{columns})
SELECT @{values}
FROM (SELECT image FROM sync_parked_row WHERE table_name = '@{table}' AND released LIMIT $1) p,
     jsonb_to_record(p.image) AS r (@{texts})

-- name: touched_create
-- The rows whose counts a batch may have changed.
CREATE TEMP TABLE IF NOT EXISTS @{noted} (counted text NOT NULL, id @{type} NOT NULL) ON COMMIT DELETE ROWS

-- name: gone_create
-- The rows to remove from the graph-db in this transaction. `again`: removed with a parent, so requested
-- again; NULL if the row is parked already. `place`: where the list has the row, and `target_id` what it has of it, if that
-- was looked up; nothing moves it under the graph's lock. Another layout needs another name: a pooler's session may have
-- the table of an earlier worker.
CREATE TEMP TABLE IF NOT EXISTS sync_leaving (
    table_name text NOT NULL, row_id uuid NOT NULL, key text[] NOT NULL, again boolean DEFAULT false,
    place tid, target_id text, PRIMARY KEY (table_name, row_id)
) ON COMMIT DELETE ROWS

-- name: gone_absent
-- Staged rows that do not belong in the target are removed from it, if present, and unparked.
WITH absent AS (DELETE FROM @{stage} s WHERE NOT s.sync_present RETURNING s.*)
INSERT INTO pg_temp.sync_leaving (table_name, row_id, key)
SELECT '@{table}', @{row_id}, ARRAY[@{key}] FROM absent s
ON CONFLICT DO NOTHING

-- name: gone_missing
-- Requested keys that the write-db does not have.
INSERT INTO pg_temp.sync_leaving (table_name, row_id, key)
SELECT '@{table}', asked.row_id, asked.key
FROM unnest($1::uuid[], $2::text[]) AS given (row_id, key_json),
     LATERAL (SELECT given.row_id, ARRAY(SELECT jsonb_array_elements_text(given.key_json::jsonb)) AS key) AS asked
WHERE NOT EXISTS (SELECT FROM @{stage} s WHERE @{row_id} = asked.row_id)
ON CONFLICT DO NOTHING
