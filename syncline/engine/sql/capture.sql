-- Read the write-db: batches in keyset order, rows by key, sizes.

-- name: capture
-- Keyset order, and only transactions that can no longer add a row behind the cursor. Expressions are
-- evaluated for these rows only: with a sort, Postgres would evaluate them for every row of the table first.
SELECT @{selection}
FROM (
    SELECT * FROM @{source}
    WHERE @{after_cursor} AND sync_xid < @{horizon}
    ORDER BY sync_xid, @{key_order}
    LIMIT @{limit}@{offset}
) AS @{name}

-- name: capture_by_key
-- Rows by key, whatever the cursor: those requested again.
SELECT @{selection}
FROM @{source}
WHERE (@{key}) IN (SELECT @{given} FROM unnest(@{parameters}) AS k (@{names}))

-- name: same_key
-- Byte by byte too, as the triggers compare keys: in some collations `a` equals `A`. The first comparison
-- uses the index.
t.@{column} = d.key[@{index}] AND t.@{column}::text COLLATE "C" = d.key[@{index}]

-- name: alive
WHEN '@{source_name}' THEN (SELECT true FROM @{source} t WHERE @{same_key} LIMIT 1) IS NOT NULL

-- name: key_bytes
-- A key's bytes. In a database where text can be anything (SQL_ASCII) it is not taken as UTF-8.
convert_to(@{key}::text, CASE getdatabaseencoding() WHEN 'SQL_ASCII' THEN 'SQL_ASCII' ELSE 'UTF8' END)

-- name: key_text
-- The key with these bytes, given in hex.
convert_from(decode(@{digits}, 'hex'), CASE getdatabaseencoding() WHEN 'SQL_ASCII' THEN 'SQL_ASCII' ELSE 'UTF8' END)

-- name: row_sample
-- The rows on a sample of pages, for a source that was never analyzed.
SELECT count(*)::float8 FROM @{source} TABLESAMPLE SYSTEM (@{percent})

-- name: row_bytes
-- The size of the source, with TOAST and partitions, and its number of rows: as many per page as when it was
-- last analyzed. Null rows if a part was never analyzed.
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
-- A token that no other history has. Numbers count up while this is the history that the reader knows; else a
-- new branch begins.
INSERT INTO @{positions} AS p (reader, branch, number, tokens)
VALUES ($1::text::uuid, $2::text::uuid, 1, ARRAY[$3::text::uuid])
ON CONFLICT (reader) DO UPDATE SET
    branch = CASE WHEN $4 THEN excluded.branch ELSE p.branch END,
    number = p.number + 1,
    tokens = CASE WHEN $4 THEN excluded.tokens ELSE (excluded.tokens || p.tokens)[1:100] END,
    written_at = now()
RETURNING branch::text, number@{file}

-- name: position_file
-- The file of the log that the write-db writes now. Its name begins with the timeline; pg_control_checkpoint() has that of
-- the last checkpoint.
, pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()) AS file
