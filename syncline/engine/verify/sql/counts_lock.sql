-- Operators discard dead letters while nobody holds the graph. As they do: the tables first, then the counts.
LOCK TABLE sync_parked_row, sync_parked_reference, sync_dead_letter, sync_outbox IN SHARE ROW EXCLUSIVE MODE
