-- Both sides write values the same way, whatever their servers are set to; and a side that waits for the other,
-- or for the vector store, is not thrown out for being idle. Plans are made for the parameters at hand.
SELECT set_config('TimeZone', 'UTC', true),
       set_config('DateStyle', 'ISO, MDY', true),
       set_config('IntervalStyle', 'postgres', true),
       set_config('extra_float_digits', '1', true),
       set_config('bytea_output', 'hex', true),
       set_config('lc_monetary', 'C', true),
       set_config('plan_cache_mode', 'force_custom_plan', true),
       set_config('idle_in_transaction_session_timeout', '0', true)
