-- Which stores a worker is refused by, and why: another worker may be set right.
-- Runs with search_path set to schema syncline.

ALTER TABLE workers ADD COLUMN unusable jsonb NOT NULL DEFAULT '[]';
