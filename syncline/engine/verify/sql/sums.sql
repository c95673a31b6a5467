-- Sums, not exclusive ors: two equal strays would cancel each other out.
SELECT @{bucket} AS bucket, count(*) AS rows, sum(@{hash})::text AS hashes
FROM @{rows}
WHERE NOT EXISTS (SELECT FROM unnest($1::uuid[]) AS u (id) WHERE u.id = @{row_id})
GROUP BY 1
