SELECT fence FROM sync_state
