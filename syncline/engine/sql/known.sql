EXISTS (SELECT FROM @{stage} s JOIN @{target} t ON @{here} WHERE s.sync_present)
