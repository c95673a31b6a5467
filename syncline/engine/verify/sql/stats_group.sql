LEFT JOIN (SELECT c.sync_owner, @{values} FROM (@{rows}) c GROUP BY 1) @{group} ON @{group}.sync_owner = o.id
CROSS JOIN (SELECT @{values} FROM @{counted} c WHERE false) @{nothing}
