-- Which embeddings a worker offers: while the embedding of a graph changes, its workers need two.
-- Runs with search_path set to schema syncline.

ALTER TABLE workers ADD COLUMN embeddings jsonb NOT NULL DEFAULT '[]';
