(SELECT @{columns} FROM @{target} o JOIN updated c ON @{same}) c
