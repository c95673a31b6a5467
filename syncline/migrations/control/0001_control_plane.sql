-- The control plane: graphs (where they are, when and with what they sync), maps, workers, and operators'
-- actions.
-- Runs with search_path set to schema syncline. The checks repeat syncline.graphs, for manual statements.

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
            AND schema_name NOT IN ('syncline', 'information_schema')
            AND schema_name !~ '^pg_'
        ),
    -- Where its sources are, if not in the schema of the same name: one that it shares with graphs of other tenants.
    write_schema  text
        CONSTRAINT graphs_write_schema_valid CHECK (
            write_schema ~ '^[a-z][a-z0-9_]*$'
            AND length(write_schema) <= 63
            AND write_schema NOT IN ('syncline', 'information_schema')
            AND write_schema !~ '^pg_'
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

-- Two graphs in one schema would overwrite each other. An archived graph keeps its schema until it is
-- deleted.
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

-- Schemas and prefixes of shadows, reserved against graphs added later. Only on insert: a promotion swaps
-- prefixes by an update.
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

-- What each worker reports about itself.
CREATE TABLE workers (
    id               uuid PRIMARY KEY,
    identity         text NOT NULL,
    task_queue       text NOT NULL,
    started_at       timestamptz NOT NULL DEFAULT now(),
    seen_at          timestamptz NOT NULL DEFAULT now(),
    syncline_version text NOT NULL,
    python_version   text NOT NULL,
    -- Objects with kind, id, version, api_version and distribution.
    providers        jsonb NOT NULL
        CONSTRAINT workers_providers_valid CHECK (jsonb_typeof(providers) = 'array'),
    -- What could not be registered, and why: sentences.
    problems         jsonb NOT NULL DEFAULT '[]'
        CONSTRAINT workers_problems_valid CHECK (jsonb_typeof(problems) = 'array'),
    -- Which version of which Worker Deployment it is: a run that is pinned to one is served by its workers alone.
    deployment_version text,
    -- Which stores refuse it, and why: another worker may be accepted.
    unusable         jsonb NOT NULL DEFAULT '[]'
);

-- Audit of operators' actions on graphs: added, changed, archived, promoted, dropped. Written with the
-- change.
CREATE TABLE graph_audit (
    number   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    graph_id uuid NOT NULL,
    slug     text NOT NULL,
    action   text NOT NULL,
    -- What changed, by name: values may be anything, options of providers too.
    fields   text[] NOT NULL DEFAULT '{}',
    -- Who somebody said to be, and why; who has started the run, as Temporal has it.
    who      text NOT NULL,
    why      text NOT NULL,
    starter  text,
    run_id   text
);
CREATE INDEX graph_audit_graph ON graph_audit (graph_id, number);
-- One record, however often its activity is retried.
CREATE UNIQUE INDEX graph_audit_run ON graph_audit (run_id, graph_id, action) WHERE run_id IS NOT NULL;

-- Providers declared as having no fallback: a plugin that is no longer installed cannot be asked.
CREATE TABLE required_providers (
    kind         text NOT NULL,
    id           text NOT NULL,
    distribution text NOT NULL,
    since        timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (kind, id)
);

-- Maps: documents that graphs are synced by, each version as it was written. None is ever changed or deleted, so
-- that a name and a version mean one document.
CREATE TABLE maps (
    name     text NOT NULL
        CONSTRAINT maps_name_valid CHECK (name ~ '^[a-z][a-z0-9_-]*$' AND length(name) <= 63),
    version  integer NOT NULL
        CONSTRAINT maps_version_valid CHECK (version >= 1),
    document text NOT NULL,
    -- Of what the document says: layout and comments do not count.
    hash     text NOT NULL,
    at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- As in graph_audit.
    who      text NOT NULL,
    why      text NOT NULL,
    starter  text,
    run_id   text,
    PRIMARY KEY (name, version)
);
