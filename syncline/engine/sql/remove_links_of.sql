WITH removed AS (
    DELETE FROM @{links} l USING pg_temp.sync_gone g WHERE g.table_name = '@{table}' AND g.row_id = l.@{owner}
    RETURNING l.@{owner}, l.@{member}
)@{touched}
SELECT count(*) FROM removed
