-- The rows on some of the pages of a source that Postgres has yet to count.
SELECT count(*)::float8 FROM @{source} TABLESAMPLE SYSTEM (@{percent})
