-- Denormalised counts.

-- name: noted
SELECT counted, count(*) AS touched FROM pg_temp.@{noted} GROUP BY 1

-- name: counted_size
-- Bytes of the rows of the tables $1.
SELECT coalesce(sum(pg_relation_size(to_regclass(quote_ident(u.name)))), 0)::bigint FROM unnest($1::text[]) AS u (name)

-- name: without_line
 WHERE NOT EXISTS (SELECT FROM @{stats} t WHERE t.@{owner} = @{row})

-- name: stats
-- Recounted from the rows: a count can be late, it cannot drift. Set-wise, so that Postgres chooses between
-- looking up a few and reading all once.
WITH touched AS MATERIALIZED (
    SELECT DISTINCT @{touched} FROM pg_temp.@{noted} u WHERE u.counted IN (@{labels})
)@{numbers}, found AS MATERIALIZED (
    SELECT @{found} FROM touched u JOIN @{target} o ON o.@{id} = u.id@{joins}
)@{updated}
INSERT INTO @{stats} (@{columns})
SELECT @{columns} FROM found f WHERE NOT EXISTS (SELECT FROM @{stats} t WHERE t.@{owner} = f.@{owner})

-- name: counters
-- The same for counts that stand in the row, which has to be found only to be written: no other column is, and no point.
WITH touched AS MATERIALIZED (
    SELECT DISTINCT @{touched} FROM pg_temp.@{noted} u WHERE u.counted IN (@{labels})
)@{numbers}, found AS MATERIALIZED (
    SELECT @{found} FROM touched u JOIN @{target} o ON o.@{id} = u.id@{joins}
)
UPDATE @{stats} t SET (@{written}) = ROW (@{proposed})
FROM found f WHERE t.@{owner} = f.@{owner} AND (@{current}) IS DISTINCT FROM (@{proposed})

-- name: stats_whole
-- The same for every row, each table read once; of a page, its ranges of the indexes are.
WITH @{numbers} found AS MATERIALIZED (
    SELECT @{found} FROM @{target} o@{joins}@{within}
)@{updated}
INSERT INTO @{stats} (@{columns})
SELECT @{columns} FROM found f WHERE NOT EXISTS (SELECT FROM @{stats} t WHERE t.@{owner} = f.@{owner}) ORDER BY f.@{owner}

-- name: counters_whole
WITH @{numbers} found AS MATERIALIZED (
    SELECT @{found} FROM @{target} o@{joins}@{within}
)
UPDATE @{stats} t SET (@{written}) = ROW (@{proposed})
FROM found f WHERE t.@{owner} = f.@{owner} AND (@{current}) IS DISTINCT FROM (@{proposed})

-- name: page_end
-- The last of the next $2 ids of a page after $1, as text; no row if fewer are left.
SELECT @{last} FROM (
    SELECT t.@{id} AS id FROM @{target} t WHERE $1::text IS NULL OR t.@{id} > @{after} ORDER BY t.@{id} OFFSET $2 - 1 LIMIT 1
) AS p

-- name: page_ids
touched AS MATERIALIZED (SELECT @{id} AS id FROM @{target} o WHERE @{within}),

-- name: in_page
-- That an id is after $1, up to $2; without either, the first, or the last.
($1::text IS NULL OR @{id} > @{after}) AND ($2::text IS NULL OR @{id} <= @{upto})

-- name: count_of_none
(SELECT @{value} FROM @{counted} c WHERE false)

-- name: stats_numbers
, n@{number} AS (
    SELECT sync_touched_id, @{values} FROM (@{rows}) c GROUP BY sync_touched_id
), none@{number} AS (
    SELECT @{values} FROM @{table} c WHERE false
)

-- name: stats_updated
, updated AS (
    UPDATE @{stats} t SET (@{written}) = ROW (@{proposed})
    FROM found f WHERE t.@{owner} = f.@{owner} AND (@{current}) IS DISTINCT FROM (@{proposed})
)
