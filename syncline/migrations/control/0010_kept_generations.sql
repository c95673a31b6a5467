-- Until when the generation before a rebuild is to be kept. Runs with search_path set to schema syncline.

-- Asked for by the last switch; it counts while readers see what was rebuilt.
ALTER TABLE graph_rebuilds ADD COLUMN kept_until timestamptz;
