-- The ledger of embeddings and the budgets of a day. Days are those of the database's clock, in UTC.

-- name: usage_days
-- Ensure that the rows exist that a reservation locks.
INSERT INTO syncline.embedding_days (day, scope, name)
SELECT (clock_timestamp() AT TIME ZONE 'UTC')::date, scope, name
FROM unnest($1::text[], $2::text[]) AS l (scope, name)
ORDER BY scope, name
ON CONFLICT DO NOTHING

-- name: usage_reserve
-- Hold $4 tokens in each of the budgets, or in none of them. One request may pass a budget: it is admitted
-- while anything is left. `waits`: requests are under way that may give back a part of what they hold.
WITH today AS MATERIALIZED (
    SELECT (clock_timestamp() AT TIME ZONE 'UTC')::date AS day
),
limits AS (
    SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[]) AS l (scope, name, budget)
),
locked AS MATERIALIZED (
    SELECT d.day, d.scope, d.name, d.tokens, d.held, d.open, d.changed_at, l.budget
    FROM syncline.embedding_days AS d JOIN limits AS l ON l.scope = d.scope AND l.name = d.name
    WHERE d.day = (SELECT day FROM today)
    ORDER BY d.scope, d.name
    FOR UPDATE OF d
),
verdict AS MATERIALIZED (
    SELECT count(*) = cardinality($1) AND bool_and(tokens + held < budget) AS admitted FROM locked
),
taken AS (
    UPDATE syncline.embedding_days AS d
    SET held = d.held + $4, open = d.open + 1, changed_at = clock_timestamp()
    FROM locked AS l, verdict AS v
    WHERE v.admitted AND d.day = l.day AND d.scope = l.scope AND d.name = l.name
)
SELECT
    l.day, l.scope, l.tokens, l.held, l.budget, v.admitted,
    l.tokens + l.held >= l.budget AS full,
    l.open > 0 AND l.changed_at > clock_timestamp() - $5 * interval '1 second' AS waits
FROM locked AS l, verdict AS v
ORDER BY l.scope

-- name: usage_book
-- Add to the ledger and to the days what was used, and give back what was held for it. Returns the days.
WITH entries AS MATERIALIZED (
    SELECT
        e.graph_id, e.slug, e.service, e.run_id,
        coalesce(e.day, (clock_timestamp() AT TIME ZONE 'UTC')::date) AS day,
        e.texts, e.tokens, e.estimated, e.requests, e.refused,
        e.counted, e.held_of_graph, e.held_of_service, e.closed_of_graph, e.closed_of_service
    FROM unnest(
        $1::uuid[], $2::text[], $3::text[], $4::text[], $5::date[],
        $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[],
        $11::bigint[], $12::bigint[], $13::bigint[], $14::integer[], $15::integer[]
    ) AS e (
        graph_id, slug, service, run_id, day,
        texts, tokens, estimated, requests, refused,
        counted, held_of_graph, held_of_service, closed_of_graph, closed_of_service
    )
),
booked AS (
    INSERT INTO syncline.embedding_usage AS u (
        graph_id, slug, service, month, run_id, texts, tokens, estimated, requests, refused
    )
    SELECT
        graph_id, slug, service, date_trunc('month', day)::date AS month, run_id,
        sum(texts), sum(tokens), sum(estimated), sum(requests), sum(refused)
    FROM entries
    GROUP BY graph_id, slug, service, month, run_id
    ORDER BY graph_id, slug, service, month, run_id
    ON CONFLICT (graph_id, slug, service, month, run_id) DO UPDATE SET
        texts = u.texts + excluded.texts,
        tokens = u.tokens + excluded.tokens,
        estimated = u.estimated + excluded.estimated,
        requests = u.requests + excluded.requests,
        refused = u.refused + excluded.refused,
        last_at = clock_timestamp()
)
INSERT INTO syncline.embedding_days AS d (day, scope, name, tokens, held, open)
SELECT e.day, s.scope, s.name, sum(e.counted), -sum(s.held), -sum(s.closed)
FROM entries AS e
CROSS JOIN LATERAL (
    VALUES
        ('graph', e.graph_id::text, e.held_of_graph, e.closed_of_graph),
        ('service', e.service, e.held_of_service, e.closed_of_service)
) AS s (scope, name, held, closed)
GROUP BY e.day, s.scope, s.name
ORDER BY e.day, s.scope, s.name
ON CONFLICT (day, scope, name) DO UPDATE SET
    tokens = d.tokens + excluded.tokens,
    held = greatest(d.held + excluded.held, 0),
    open = greatest(d.open + excluded.open, 0),
    changed_at = clock_timestamp()
RETURNING d.scope, d.name, d.tokens

-- name: usage_prune
-- Keep of runs that ended $1 days ago the sum of their month, and no days before then.
WITH gone AS (
    DELETE FROM syncline.embedding_usage
    WHERE run_id <> '' AND last_at < clock_timestamp() - $1 * interval '1 day'
    RETURNING *
),
days AS (
    DELETE FROM syncline.embedding_days
    WHERE day < (clock_timestamp() AT TIME ZONE 'UTC')::date - $1::integer
)
INSERT INTO syncline.embedding_usage AS u (
    graph_id, slug, service, month, run_id, texts, tokens, estimated, requests, refused, first_at, last_at
)
SELECT
    graph_id, slug, service, month, '', sum(texts), sum(tokens), sum(estimated), sum(requests), sum(refused),
    min(first_at), max(last_at)
FROM gone
GROUP BY graph_id, slug, service, month
ORDER BY graph_id, slug, service, month
ON CONFLICT (graph_id, slug, service, month, run_id) DO UPDATE SET
    texts = u.texts + excluded.texts,
    tokens = u.tokens + excluded.tokens,
    estimated = u.estimated + excluded.estimated,
    requests = u.requests + excluded.requests,
    refused = u.refused + excluded.refused,
    first_at = least(u.first_at, excluded.first_at),
    last_at = greatest(u.last_at, excluded.last_at)

-- name: usage_months
-- Sums by month, graph and service, the newest month first: of one graph, or of one month, or of all.
SELECT
    graph_id, slug AS graph, service, to_char(month, 'YYYY-MM') AS month, NULL::text AS run_id,
    sum(texts)::bigint AS texts, sum(tokens)::bigint AS tokens, sum(estimated)::bigint AS estimated,
    sum(requests)::bigint AS requests, sum(refused)::bigint AS refused,
    min(first_at) AS first_at, max(last_at) AS last_at
FROM syncline.embedding_usage AS u
WHERE ($1::uuid IS NULL OR graph_id = $1) AND ($2::date IS NULL OR u.month = $2)
GROUP BY graph_id, slug, service, u.month
ORDER BY u.month DESC, slug, service
LIMIT $3

-- name: usage_runs
-- The newest runs of a graph.
SELECT
    graph_id, slug AS graph, service, to_char(month, 'YYYY-MM') AS month, run_id,
    texts, tokens, estimated, requests, refused, first_at, last_at
FROM syncline.embedding_usage AS u
WHERE graph_id = $1 AND ($2::date IS NULL OR u.month = $2) AND run_id <> ''
ORDER BY last_at DESC, run_id
LIMIT $3

-- name: usage_today
-- What is used of this day, by graph or service.
SELECT scope, name, tokens, held
FROM syncline.embedding_days
WHERE day = (clock_timestamp() AT TIME ZONE 'UTC')::date
    AND (scope, name) IN (SELECT * FROM unnest($1::text[], $2::text[]))
