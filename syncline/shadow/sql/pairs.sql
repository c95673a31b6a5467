SELECT count(*) FROM @{live} l JOIN @{shadow} s ON @{same_key}
