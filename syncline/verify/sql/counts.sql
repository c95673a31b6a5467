-- The counts kept by triggers.

-- name: counts_found
-- The stored counts that differ from the actual ones.
WITH found (counted, name, refused, entries) AS (
    SELECT 'sync_parked_row', table_name, false, count(*) FROM sync_parked_row GROUP BY table_name
    UNION ALL
    SELECT 'sync_parked_reference', table_name, false, count(*) FROM sync_parked_reference GROUP BY table_name
    UNION ALL
    SELECT 'sync_dead_letter', table_name, false, count(*) FROM sync_dead_letter GROUP BY table_name
    UNION ALL
    SELECT 'sync_outbox', collection, error IS NOT NULL, count(*) FROM sync_outbox GROUP BY collection, error IS NOT NULL
)
SELECT counted, name, refused, coalesce(f.entries, 0) AS entries,
       coalesce(k.entries, 0) = coalesce(f.entries, 0) AS same
FROM sync_count k FULL JOIN found f USING (counted, name, refused)
ORDER BY counted, name, refused

-- name: counts_lock
-- Operators discard dead letters without the graph's lock. Same order as theirs: the tables first, then the
-- counts.
LOCK TABLE sync_parked_row, sync_parked_reference, sync_dead_letter, sync_outbox IN SHARE ROW EXCLUSIVE MODE

-- name: counts_mend
WITH mended AS (
    INSERT INTO sync_count AS c (counted, name, refused, entries)
    SELECT counted, name, refused, entries FROM (@{found}) AS f WHERE NOT same
    ON CONFLICT (counted, name, refused) DO UPDATE SET entries = excluded.entries
    RETURNING 1
)
SELECT count(*) FROM mended

-- name: owed_there
SELECT to_regclass($1 || '.sync_owed') IS NOT NULL
