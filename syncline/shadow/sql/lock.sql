SELECT pg_advisory_xact_lock(hashtextextended('syncline:' || $1, 0))
