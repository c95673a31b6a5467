-- What a row of the source takes on average, TOAST and all; NULL where Postgres has not counted the rows yet.
SELECT (pg_table_size(c.oid) / nullif(greatest(c.reltuples, 0), 0))::float8
FROM pg_class c WHERE c.oid = to_regclass('@{source}')
