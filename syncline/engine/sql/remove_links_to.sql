-- A link to a row that leaves waits for it to come back, unless its owner leaves too.
WITH removed AS (
    DELETE FROM @{links} l USING pg_temp.sync_gone g
    WHERE g.table_name = '@{parent_name}' AND g.row_id = l.@{member}
    RETURNING l.@{owner}, l.@{member}, g.key[1] AS sync_member_key
), parked AS (
    INSERT INTO sync_parked_reference (table_name, name, owner, waits_for_table, waits_for, waits_for_key)
    SELECT '@{child_name}', '@{links_name}', r.@{owner}, '@{parent_name}', r.@{member}, r.sync_member_key FROM removed r
    WHERE NOT EXISTS (SELECT FROM pg_temp.sync_gone g WHERE g.table_name = '@{child_name}' AND g.row_id = r.@{owner})
    ON CONFLICT DO NOTHING
)@{touched}
SELECT count(*) FROM removed
