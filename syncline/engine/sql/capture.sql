-- Keyset order, and only transactions that can no longer add a row behind the cursor. Expressions are for these rows
-- alone: where Postgres sorts, it would try them on every row of the table first.
SELECT @{selection}
FROM (
    SELECT * FROM @{source}
    WHERE @{after_cursor} AND sync_xid < @{horizon}
    ORDER BY sync_xid, @{key_order}
    LIMIT @{limit}
) AS @{name}
