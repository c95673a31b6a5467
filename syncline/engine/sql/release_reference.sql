WITH ready AS (
    DELETE FROM sync_parked_reference r WHERE @{awaiting}
    RETURNING r.owner, r.waits_for
), changed AS (
    UPDATE @{child} t SET @{reference} = r.waits_for FROM ready r WHERE t.id = r.owner RETURNING t.id, t.@{reference}
)@{queue}@{touched}
SELECT count(*) FROM changed
