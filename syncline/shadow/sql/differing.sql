-- The rows that one of them lacks, or that differ.
SELECT coalesce(l.@{first}, s.@{first}) AS row_id, ARRAY[@{key}] AS key,
       s.@{first} IS NULL AS missing, l.@{first} IS NULL AS extra,
       array_remove(ARRAY[@{columns}]::text[], NULL) AS columns
FROM @{live} l FULL JOIN @{shadow} s ON @{same_key}
WHERE l.@{first} IS NULL OR s.@{first} IS NULL OR @{differs}
ORDER BY 1
