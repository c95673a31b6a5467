WITH ready AS (
    DELETE FROM sync_parked_reference r USING @{stage} s
    WHERE r.table_name = '@{child_name}' AND r.name = '@{links_name}' AND r.waits_for = s.sync_row_id AND s.sync_present
    RETURNING r.owner, r.waits_for
), changed AS (
    INSERT INTO @{links} (@{owner}, @{member})
    SELECT r.owner, r.waits_for FROM ready r JOIN @{child} t ON t.id = r.owner
    ON CONFLICT DO NOTHING
    RETURNING 1
)
SELECT count(*) FROM changed
