-- As many rows as the planner thinks there are: a promotion may have changed any of them.
SELECT relname AS name, greatest(reltuples, 1)::bigint AS rows
FROM pg_class
WHERE relnamespace = to_regnamespace(quote_ident($1)) AND relkind IN ('r', 'p') AND relname !~ '^sync_'
ORDER BY 1
