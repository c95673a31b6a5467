SELECT l.fence AS live, s.fence AS shadow FROM @{live}.sync_state l, @{shadow}.sync_state s
