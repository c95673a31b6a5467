-- Kept by triggers, so that it costs the same however many wait.
SELECT name AS table_name,
       coalesce(sum(entries) FILTER (WHERE counted <> 'sync_dead_letter'), 0)::bigint AS parked,
       coalesce(sum(entries) FILTER (WHERE counted = 'sync_dead_letter'), 0)::bigint AS dead
FROM sync_count
WHERE counted <> 'sync_outbox' AND entries > 0
GROUP BY name
