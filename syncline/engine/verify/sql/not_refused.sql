(@{key}) NOT IN (SELECT * FROM unnest(@{parameters}))
