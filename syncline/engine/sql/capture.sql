-- Read the write-db: batches in keyset order, rows by key, sizes.

-- name: capture
-- Keyset order, and only transactions that can no longer add a row behind the cursor. Expressions are for these rows
-- alone: where Postgres sorts, it would try them on every row of the table first.
SELECT @{selection}
FROM (
    SELECT * FROM @{source}
    WHERE @{after_cursor} AND sync_xid < @{horizon}
    ORDER BY sync_xid, @{key_order}
    LIMIT @{limit}
) AS @{name}

-- name: capture_by_key
-- Rows by key, whatever the cursor says: those that are asked for again.
SELECT @{selection}
FROM @{source}
WHERE (@{key}) IN (SELECT @{given} FROM unnest(@{parameters}) AS k (@{names}))

-- name: same_key
-- Byte by byte too, as the triggers tell keys apart: there are collations in which `a` is `A`. The first serves the index.
t.@{column} = d.key[@{index}] AND t.@{column}::text COLLATE "C" = d.key[@{index}]

-- name: alive
WHEN '@{source_name}' THEN (SELECT true FROM @{source} t WHERE @{same_key} LIMIT 1) IS NOT NULL

-- name: key_bytes
-- The bytes of a key as the engine knows it. Where a text can be anything (SQL_ASCII) it is not taken for UTF-8.
convert_to(@{key}::text, CASE getdatabaseencoding() WHEN 'SQL_ASCII' THEN 'SQL_ASCII' ELSE 'UTF8' END)

-- name: key_text
-- The key that has these bytes, given in hex.
convert_from(decode(@{digits}, 'hex'), CASE getdatabaseencoding() WHEN 'SQL_ASCII' THEN 'SQL_ASCII' ELSE 'UTF8' END)

-- name: row_sample
-- The rows on some of the pages of a source that Postgres has yet to count.
SELECT count(*)::float8 FROM @{source} TABLESAMPLE SYSTEM (@{percent})

-- name: row_bytes
-- What the source takes, TOAST, partitions and all, and how many rows that is: as many on each page as when Postgres counted
-- them. It tells no rows where it has yet to count some.
WITH part AS (
    SELECT pg_table_size(c.oid)::float8 AS bytes,
           pg_relation_size(c.oid) / current_setting('block_size')::float8 AS pages,
           CASE WHEN c.reltuples > 0 AND c.relpages > 0 THEN c.reltuples::float8 / c.relpages END AS rows_a_page
    FROM pg_class c
    WHERE c.relkind = 'r' AND c.oid IN (
        SELECT to_regclass('@{source}')
        UNION ALL
        SELECT relid FROM pg_partition_tree(to_regclass('@{source}'))
    )
)
SELECT sum(bytes) AS bytes, sum(pages) AS pages,
       CASE WHEN bool_and(rows_a_page IS NOT NULL) THEN sum(rows_a_page * pages) END AS rows
FROM part WHERE pages > 0

-- name: position_write
-- A token that no other past has. Numbers go on as long as this is the past that the reader knows; else a branch begins.
INSERT INTO @{positions} AS p (reader, branch, number, tokens)
VALUES ($1::text::uuid, $2::text::uuid, 1, ARRAY[$3::text::uuid])
ON CONFLICT (reader) DO UPDATE SET
    branch = CASE WHEN $4 THEN excluded.branch ELSE p.branch END,
    number = p.number + 1,
    tokens = CASE WHEN $4 THEN excluded.tokens ELSE (excluded.tokens || p.tokens)[1:100] END,
    written_at = now()
RETURNING branch::text, number
