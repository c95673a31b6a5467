WHEN '@{source_name}' THEN EXISTS (SELECT FROM @{source} t WHERE @{same_key})
