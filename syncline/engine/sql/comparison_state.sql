SELECT part, after, reason FROM sync_comparison WHERE table_name = $1
