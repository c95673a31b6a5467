-- The places of shadows: no graph that comes later may have one. Runs with search_path set to schema syncline.
-- Of inserts alone: graphs that have such a name already keep it, and a promotion swaps prefixes by an update.

CREATE FUNCTION keep_shadow_places() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.schema_name ~ '_shadow$' THEN
        RAISE check_violation USING CONSTRAINT = 'graphs_schema_of_shadow',
            MESSAGE = 'violates rule "graphs_schema_of_shadow": schemas that end in _shadow are those of shadows';
    END IF;
    IF NEW.qdrant_prefix ~ 'shadow_$' OR EXISTS (
        -- Of one that was promoted, the shadow has the prefix that it had before.
        SELECT FROM syncline.graphs g
        WHERE coalesce(g.qdrant_store, '') = coalesce(NEW.qdrant_store, '')
            AND g.qdrant_prefix = NEW.qdrant_prefix || 'shadow_'
    ) THEN
        RAISE check_violation USING CONSTRAINT = 'graphs_prefix_of_shadow',
            MESSAGE = 'violates rule "graphs_prefix_of_shadow": it is the prefix of a shadow';
    END IF;
    RETURN NEW;
END
$$;

CREATE TRIGGER keep_shadow_places BEFORE INSERT ON graphs
    FOR EACH ROW EXECUTE FUNCTION keep_shadow_places();
