SELECT syncline.row_uuid($1) AS row_id, t.sync_version, r.run_id, r.workflow_id, r.attempt, r.provider,
       r.provider_version, r.taken_at
FROM @{target} t
LEFT JOIN sync_run r ON r.fence = t.sync_run
WHERE @{same_row}
