-- What the positions of capture rest on. Runs with search_path set to the graph's schema.

-- Who reads, whatever the schema is called, and which past of the write-db the cursors are of: "branch/number/token" of the
-- write-db's sync_position; null as long as none could be written there.
ALTER TABLE sync_state ADD COLUMN reader uuid NOT NULL DEFAULT gen_random_uuid();
ALTER TABLE sync_state ADD COLUMN position text;

-- How each source was captured when its cursor was moved last. Another way means that capture may have been off.
CREATE TABLE sync_source (
    table_name text PRIMARY KEY,
    hash       text NOT NULL,
    captured   text NOT NULL
);

-- Tables of which rows may have gone without a trace: their keys are compared with the write-db's, part after part.
CREATE TABLE sync_comparison (
    table_name text PRIMARY KEY,
    reason     text NOT NULL,
    part       text NOT NULL DEFAULT 'rows',
    after      uuid[],
    since      timestamptz NOT NULL DEFAULT clock_timestamp()
);
