SELECT EXISTS (SELECT FROM @{live}.sync_audit WHERE run_id = $1 AND action = '@{action}')
