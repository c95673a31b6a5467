SELECT (SELECT count(*) FROM @{schema}.sync_outbox WHERE error IS NULL) AS points,
       (SELECT count(*) FROM @{schema}.sync_dead_letter) AS dead
