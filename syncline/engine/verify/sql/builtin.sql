-- Which of the types, as a map spells them, every Postgres has. Where only pg_catalog is searched, others are not found.
SELECT DISTINCT spelled
FROM unnest($1::text[]) AS spelled JOIN pg_type t ON t.oid = to_regtype(spelled)
WHERE t.typnamespace = 'pg_catalog'::regnamespace
