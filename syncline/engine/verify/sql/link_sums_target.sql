SELECT @{bucket} AS bucket, count(*) AS rows, sum(@{hash})::text AS hashes
FROM @{links} l
WHERE NOT EXISTS (SELECT FROM unnest($1::uuid[]) AS u (id) WHERE u.id = l.@{owner})
GROUP BY 1
