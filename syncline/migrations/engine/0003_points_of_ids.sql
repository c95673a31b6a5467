-- The id of a point's row, as text in its form, where that is no uuid; empty if there is no such row. Without it
-- the point's id is the row's.
ALTER TABLE sync_outbox ADD COLUMN target_id text COLLATE "C";
