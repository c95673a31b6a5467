-- The graph's schema, and the settings that decide how values are written and read as text: one form of a value on every
-- road, whatever roles and databases are set to. Once a value was written under one setting and read under another, days
-- and months could change places.
SELECT set_config('search_path', quote_ident($1), @{local}),
       set_config('TimeZone', 'UTC', @{local}),
       set_config('DateStyle', 'ISO, MDY', @{local}),
       set_config('IntervalStyle', 'postgres', @{local}),
       set_config('extra_float_digits', '1', @{local}),
       set_config('bytea_output', 'hex', @{local}),
       set_config('xmloption', 'content', @{local}),
       set_config('array_nulls', 'on', @{local}),
       set_config('standard_conforming_strings', 'on', @{local}),
       set_config('lc_monetary', 'C', @{local}),
       set_config('lc_numeric', 'C', @{local}),
       set_config('lc_time', 'C', @{local})
