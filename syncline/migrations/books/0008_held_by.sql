-- Which row has the unique value that a refused row wants. Runs with search_path set to the graph's schema.

-- Once that row changes or leaves, the refused one is tried again, whatever its own time: `held_by` is its id in the
-- books, null where Postgres refused for another reason.
ALTER TABLE sync_dead_letter ADD COLUMN held_by uuid;
CREATE INDEX sync_dead_letter_held_by ON sync_dead_letter (table_name, held_by) WHERE held_by IS NOT NULL;
