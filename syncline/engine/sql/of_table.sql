-- The table's name, in words that need a staged row: its rows are looked up one by one. By the bare name, the planner
-- takes an index that begins with it for selective as long as it has no statistics, and reads all that has this name.
left(s.sync_xid::text, 0) || '@{table}'
