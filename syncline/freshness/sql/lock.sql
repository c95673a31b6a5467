SELECT pg_try_advisory_lock(hashtextextended('syncline.listener:' || $1, 0))
