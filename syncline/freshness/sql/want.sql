UPDATE ONLY @{state} SET wanted = @{wanted} WHERE wanted IS DISTINCT FROM @{wanted} RETURNING '@{schema}' AS schema
