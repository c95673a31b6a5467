-- The list of rows, for tables whose target does not tell the key of a row, or whose ids do not follow from the
-- key (`id` of a table map: `beside`, `column`, `assigned`). target_id is the id in the target, as text in its form
-- (syncline.maps.key_types); null if that is row_id. A row of the target that is in no list is not the engine's.
-- Free space on the page keeps a row's new version next to the old one, without index updates.
CREATE TABLE sync_row (
    table_name text COLLATE "C" NOT NULL,
    row_id     uuid NOT NULL,
    key        text[] NOT NULL,
    target_id  text COLLATE "C",
    version    bigint,           -- the write-db transaction that changed the row last, if the map wants it kept
    run        bigint,           -- the number of the run that applied that
    PRIMARY KEY (table_name, row_id)
) WITH (fillfactor = 90);
CREATE UNIQUE INDEX sync_row_target ON sync_row (table_name, target_id) WHERE target_id IS NOT NULL;

-- How far counts are made again, by ids of any type.
ALTER TABLE sync_mapped ALTER COLUMN recounted TYPE text USING recounted::text;
