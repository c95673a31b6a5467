-- What each graph's vectors are made with, and where they are. A worker whose settings say otherwise writes none.
-- Runs with search_path set to schema syncline.

CREATE TABLE graph_embeddings (
    graph_id   uuid PRIMARY KEY REFERENCES graphs (id) ON DELETE CASCADE,
    -- The service's name: kind, model and dimensions. Of the others, null is not recorded: anything fits.
    embedding  text NOT NULL,
    dimensions integer,
    -- Host, port and path. Never a key or a query.
    address    text,
    -- Fingerprint of the further fields of its requests.
    options    text,
    store      text,
    changed_at timestamptz NOT NULL DEFAULT now()
);
