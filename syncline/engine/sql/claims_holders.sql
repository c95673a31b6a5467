-- The row of the target that has what a staged row wants, as the books name it.
SELECT w.sync_tid AS tid, @{row_id} AS held_by
FROM @{target} t
JOIN pg_temp.sync_claim w ON w.@{applies} AND @{wanted}
WHERE @{predicate} AND w.sync_tid = ANY ($1::tid[]) AND NOT (@{same_wants})
