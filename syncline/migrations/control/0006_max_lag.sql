-- How far a graph's graph-db may be behind its write-db, in seconds; null: nothing is promised.
-- Runs with search_path set to schema syncline.

ALTER TABLE graphs ADD COLUMN max_lag_seconds integer
    CONSTRAINT graphs_max_lag_valid CHECK (max_lag_seconds BETWEEN 1 AND 2592000);
