SELECT d.* FROM (
        SELECT m.owner, syncline.key_uuid(m.key) AS member, m.key
        FROM (SELECT s.sync_row_id AS owner, unnest(s.@{source}) AS key FROM @{stage} s WHERE s.sync_present) m
        WHERE m.key IS NOT NULL
    ) d @{unrejected}
