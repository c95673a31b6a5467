-- Kept by triggers: nothing is counted while a promotion holds both schemas.
SELECT coalesce(sum(entries) FILTER (WHERE counted = 'sync_outbox' AND NOT refused), 0)::bigint AS points,
       coalesce(sum(entries) FILTER (WHERE counted = 'sync_dead_letter'), 0)::bigint AS dead
FROM @{schema}.sync_count
