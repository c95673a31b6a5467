-- The same, where a row's key is its parents.
SELECT syncline.row_uuid(k.key) AS row_id, k.key, ARRAY[@{own_key}] AS after
FROM (
    SELECT * FROM @{target} t
    WHERE $1::uuid[] IS NULL OR (@{own_key}) > (@{after})
    ORDER BY @{own_key} LIMIT $2
) t
@{joins}
CROSS JOIN LATERAL (SELECT ARRAY[@{key}] AS key) AS k
ORDER BY @{own_key}
