-- The control plane: which graphs there are, where they live, when they sync and with what.
-- Runs with search_path set to schema syncline. The checks repeat syncline.graphs, for whoever writes by hand.

CREATE TABLE graphs (
    id            uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    slug          text NOT NULL
        CONSTRAINT graphs_slug_unique UNIQUE
        CONSTRAINT graphs_slug_valid CHECK (slug ~ '^[a-z][a-z0-9-]*$' AND length(slug) <= 63),
    name          text NOT NULL
        CONSTRAINT graphs_name_valid CHECK (length(name) BETWEEN 1 AND 200),
    status        text NOT NULL DEFAULT 'active'
        CONSTRAINT graphs_status_valid CHECK (status IN ('active', 'paused', 'archived')),
    is_default    boolean NOT NULL DEFAULT false,
    -- Keys into settings, null for the system's stores. Never a connection URI: the pattern refuses one.
    write_store   text
        CONSTRAINT graphs_write_store_valid CHECK (write_store ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$'),
    graph_store   text
        CONSTRAINT graphs_graph_store_valid CHECK (graph_store ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$'),
    schema_name   text NOT NULL
        CONSTRAINT graphs_schema_name_valid CHECK (
            schema_name ~ '^[a-z][a-z0-9_]*$'
            AND length(schema_name) <= 63
            AND schema_name NOT IN ('syncline', 'public', 'information_schema')
            AND schema_name !~ '^pg_'
        ),
    qdrant_prefix text NOT NULL
        CONSTRAINT graphs_qdrant_prefix_valid CHECK (qdrant_prefix ~ '^[A-Za-z0-9][A-Za-z0-9_-]{0,99}$'),
    qdrant_store  text
        CONSTRAINT graphs_qdrant_store_valid CHECK (qdrant_store ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$'),
    schedule      jsonb NOT NULL DEFAULT '{}'
        CONSTRAINT graphs_schedule_valid CHECK (
            CASE
                WHEN jsonb_typeof(schedule) <> 'object' THEN false
                WHEN NOT schedule ? 'every_seconds' THEN true
                WHEN jsonb_typeof(schedule -> 'every_seconds') <> 'number' THEN false
                ELSE (schedule ->> 'every_seconds')::numeric BETWEEN 1 AND 2592000
            END
        ),
    composition   jsonb NOT NULL DEFAULT '{}'
        CONSTRAINT graphs_composition_valid CHECK (jsonb_typeof(composition) = 'object'),
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now()
);

CREATE UNIQUE INDEX graphs_one_default ON graphs (is_default) WHERE is_default;

-- Two graphs in one place would overwrite each other. An archived graph keeps its place until it is deleted.
CREATE UNIQUE INDEX graphs_schema_unique ON graphs (coalesce(graph_store, ''), schema_name);
CREATE UNIQUE INDEX graphs_prefix_unique ON graphs (coalesce(qdrant_store, ''), qdrant_prefix);

CREATE FUNCTION touch_updated_at() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at := clock_timestamp();
    RETURN NEW;
END
$$;

CREATE TRIGGER touch_updated_at BEFORE UPDATE ON graphs
    FOR EACH ROW EXECUTE FUNCTION touch_updated_at();
