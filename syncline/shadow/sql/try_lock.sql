-- The locks that cycles hold on both schemas, until the transaction ends.
SELECT pg_try_advisory_xact_lock(hashtextextended('syncline:' || $1, 0))
   AND pg_try_advisory_xact_lock(hashtextextended('syncline:' || $2, 0))
