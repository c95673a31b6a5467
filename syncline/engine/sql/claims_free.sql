-- The values of these rows are free from here on: each has one that nobody wants until it is merged.
UPDATE @{target} t SET @{column} = @{value}
FROM (SELECT c.*, row_number() OVER () AS sync_n FROM pg_temp.sync_claim c WHERE c.sync_tid = ANY ($1::tid[])) c
WHERE @{same}
