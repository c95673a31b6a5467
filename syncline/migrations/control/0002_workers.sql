-- Which workers there are, as each tells about itself: what is installed where, and who has gone.
-- Runs with search_path set to schema syncline.

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
        CONSTRAINT workers_problems_valid CHECK (jsonb_typeof(problems) = 'array')
);
