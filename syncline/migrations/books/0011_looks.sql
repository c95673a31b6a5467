-- Who asks the holder of the graph to look once more. Runs with search_path set to the graph's schema.

-- A cycle that finds the graph taken counts one up; the holder compares, when it gives the graph back, with what it
-- read before its last look at the write-db. A sequence, so that neither waits for the other's transaction, and so that
-- nothing is left to clear away: whoever takes the graph next looks anyway.
CREATE SEQUENCE IF NOT EXISTS sync_look;
