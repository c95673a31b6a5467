SELECT fence FROM @{schema}.sync_state
