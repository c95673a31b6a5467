-- What each generation of a graph's vectors is made with: two, while its model changes.
-- Runs with search_path set to schema syncline.

ALTER TABLE graph_embeddings
    ADD COLUMN generation integer NOT NULL DEFAULT 1,
    DROP CONSTRAINT graph_embeddings_pkey,
    ADD PRIMARY KEY (graph_id, generation);
