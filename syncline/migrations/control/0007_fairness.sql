-- The tenant that a graph's waiting work is counted to, by Temporal's fairness; null: the graph itself, weight 1.
-- Runs with search_path set to schema syncline.

ALTER TABLE graphs
    ADD COLUMN fairness_key text
        CONSTRAINT graphs_fairness_key_valid CHECK (fairness_key ~ '^[A-Za-z0-9][A-Za-z0-9._:@/-]{0,63}$'),
    ADD COLUMN fairness_weight double precision
        CONSTRAINT graphs_fairness_weight_valid CHECK (fairness_weight BETWEEN 0.001 AND 1000);
