SELECT asked, format_type(to_regtype(asked), NULL) AS spelled FROM unnest($1::text[]) AS asked
