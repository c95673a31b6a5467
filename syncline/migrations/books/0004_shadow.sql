-- What a promotion swaps, so that a cycle which was given the other half of it stops.
-- Runs with search_path set to the graph's schema.

-- The prefix of the collections that these books are about; null for a graph that was never promoted.
ALTER TABLE sync_state ADD COLUMN vector_prefix text;
-- The provider whose result a shadow is; null for a live graph.
ALTER TABLE sync_state ADD COLUMN shadow_provider text;
