-- A side that waits for the other, or for the vector store, is not thrown out for being idle. Plans are made for the
-- parameters at hand.
SELECT set_config('plan_cache_mode', 'force_custom_plan', true),
       set_config('idle_in_transaction_session_timeout', '0', true)
