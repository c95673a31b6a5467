WHEN '@{source_name}' THEN (SELECT true FROM @{source} t WHERE @{same_key} LIMIT 1) IS NOT NULL
