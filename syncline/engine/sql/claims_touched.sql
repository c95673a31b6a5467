-- Numbers that these rows are counted in have to be counted again: what they were is about to be forgotten.
WITH held AS (
    SELECT t.* FROM @{target} t JOIN pg_temp.sync_claim c ON @{same} WHERE c.sync_tid = ANY ($1::tid[])
)@{touched}
SELECT count(*) FROM held
