-- What the write-db remembers of this reader, and up to where deleted keys were cleared away by whichever reader.
(
    SELECT json_build_array(
        p.branch, p.number, p.tokens[p.number - @{number} + 1],
        -- Above the horizon it is of another cluster, whose dump was loaded here.
        (
            SELECT q.cleared_below FROM @{positions} q
            WHERE q.cleared_below <= pg_snapshot_xmin(pg_current_snapshot())::text::bigint
            ORDER BY q.cleared_below DESC LIMIT 1
        )
    )::text
    FROM (SELECT) AS one LEFT JOIN @{positions} p ON p.reader = @{reader}
)
