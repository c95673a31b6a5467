-- What was deleted is asked for a row's own key alone, and for all keys at once: tombstones are not in their order.
SELECT '@{table}' AS "table", @{named_by} AS named_by, asked.key, found.there, found.present, gone.deleted_at
FROM unnest($@{number}::text[]) AS asked (key)
CROSS JOIN LATERAL (
    SELECT count(*) > 0 AS there, bool_or((@{present}) IS TRUE) AS present FROM @{source} WHERE @{column} = asked.key
) AS found
LEFT JOIN (
    SELECT d.key[1] AS key, max(d.deleted_at) AS deleted_at FROM @{tombstones} d
    WHERE @{own_key} AND d.source_table = '@{source_name}' AND d.key IN (SELECT ARRAY[k] FROM unnest($@{number}::text[]) AS k)
    GROUP BY d.key
) AS gone ON gone.key = asked.key
