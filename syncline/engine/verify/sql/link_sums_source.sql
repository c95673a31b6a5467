SELECT @{bucket} AS bucket, count(*) AS rows, sum(@{hash})::text AS hashes
FROM @{links}
WHERE NOT m.rejected AND NOT EXISTS (SELECT FROM unnest($1::uuid[]) AS u (id) WHERE u.id = s.sync_row_id)
GROUP BY 1
