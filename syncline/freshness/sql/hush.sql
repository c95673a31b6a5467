UPDATE ONLY @{state} SET hushed_until = clock_timestamp() + make_interval(secs => $1)
