-- A rejection takes its link away, whether it is there or waits.
WITH removed AS (
    DELETE FROM @{links} l USING @{stage} s
    WHERE s.sync_present AND l.@{owner} = s.@{owner_id} AND l.@{member} = s.@{member_id}
    RETURNING l.@{owner}, l.@{member}
), waiting AS (
    DELETE FROM sync_parked_reference r USING @{stage} s
    WHERE s.sync_present AND r.table_name = '@{child_name}' AND r.name = '@{links_name}'
      AND r.owner = s.@{owner_id} AND r.waits_for = s.@{member_id}
)@{touched}
SELECT count(*) FROM removed
