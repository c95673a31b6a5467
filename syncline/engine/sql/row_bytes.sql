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
