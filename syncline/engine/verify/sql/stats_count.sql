SELECT count(*) FROM @{target}
