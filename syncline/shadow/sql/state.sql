SELECT vector_prefix, shadow_provider FROM @{schema}.sync_state
