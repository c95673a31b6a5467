-- What there is in the place of a shadow.
SELECT to_regclass(quote_ident($1) || '.sync_state') IS NOT NULL AS made,
       EXISTS (SELECT FROM pg_class WHERE relnamespace = to_regnamespace(quote_ident($1))) AS filled
