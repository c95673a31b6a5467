-- Rows that cannot take another value for a while leave and come back in one statement: a row that left is in nobody's
-- way, and foreign keys without an action of their own look only once all is done.
WITH gone AS MATERIALIZED (
    DELETE FROM @{target} t USING pg_temp.sync_claim c
    WHERE c.sync_leaves AND @{same}
    RETURNING t.*
), changed AS (
    INSERT INTO @{target} AS t (@{columns}) OVERRIDING SYSTEM VALUE
    SELECT @{values} FROM @{stage} s JOIN gone g ON @{same_gone}
    JOIN pg_temp.sync_claim c ON c.sync_tid = s.ctid AND c.sync_leaves
    WHERE (SELECT count(*) FROM gone) > 0
    RETURNING @{returned}
)@{queue}@{touched}
SELECT count(*) FROM changed
