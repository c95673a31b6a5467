WITH ready AS (
    DELETE FROM sync_parked_reference r USING @{stage} s
    WHERE r.table_name = '@{child_name}' AND r.name = '@{reference_name}'
      AND r.waits_for = s.sync_row_id AND s.sync_present
    RETURNING r.owner, r.waits_for
), changed AS (
    UPDATE @{child} t SET @{reference} = r.waits_for FROM ready r WHERE t.id = r.owner RETURNING t.id, t.@{reference}
)@{queue}@{touched}
SELECT count(*) FROM changed
