SELECT wanted FROM @{state}
