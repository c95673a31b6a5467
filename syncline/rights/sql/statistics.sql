-- To see how long other roles' transactions have been open.
GRANT pg_read_all_stats TO @{worker};
