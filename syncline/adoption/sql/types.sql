-- As columns are spelled: a type of schema $2 itself without it.
SELECT a.asked,
       CASE WHEN n.nspname = $2 THEN substr(format_type(t.oid, NULL), length(quote_ident($2)) + 2)
           ELSE format_type(t.oid, NULL) END AS spelled
FROM unnest($1::text[]) AS a (asked)
LEFT JOIN pg_type t ON t.oid = coalesce(to_regtype(a.asked), to_regtype(quote_ident($2) || '.' || a.asked))
LEFT JOIN pg_namespace n ON n.oid = t.typnamespace
