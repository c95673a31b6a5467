UPDATE @{schema}.sync_state SET vector_prefix = $1, shadow_provider = $2
