-- How each source is captured. A row of the catalog has another xmin after every change, also after one that was taken back:
-- [table, triggers with their functions, columns, their xmins, file, [partitions with their triggers]]. One statement for all
-- of them: it is planned more often than not.
SELECT array_agg(hashtextextended(how.text, 0)::text ORDER BY source.place) AS hashes,
       array_agg(@{whole} ORDER BY source.place) AS texts
FROM unnest(ARRAY[@{names}]::text[], ARRAY[@{columns}]::text[]) WITH ORDINALITY AS source (name, columns, place)
LEFT JOIN LATERAL (
    SELECT json_build_array(
        c.oid,
        (
            SELECT string_agg(concat_ws(':', t.oid, t.xmin, t.tgenabled, p.oid, p.xmin), ',' ORDER BY t.oid)
            FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
            WHERE t.tgrelid = c.oid
              AND t.tgname IN ('capture_version', 'capture_delete', 'capture_key', 'capture_truncate')
        ),
        a.columns, a.stamps,
        c.relfilenode,
        CASE WHEN c.relkind = 'p' THEN (
            SELECT json_agg(
                json_build_array(
                    i.inhrelid, i.xmin::text,
                    (
                        SELECT string_agg(concat_ws(':', t.oid, t.xmin, t.tgenabled), ',' ORDER BY t.oid)
                        FROM pg_catalog.pg_trigger t
                        WHERE t.tgrelid = i.inhrelid
                          AND t.tgname IN ('capture_version', 'capture_delete', 'capture_key')
                    ),
                    (
                        SELECT string_agg(concat_ws(':', t.oid, t.xmin, t.tgenabled), ',' ORDER BY t.oid)
                        FROM pg_catalog.pg_trigger t
                        WHERE t.tgrelid = i.inhrelid AND t.tgname = 'capture_truncate'
                    )
                ) ORDER BY i.inhrelid
            )
            FROM pg_catalog.pg_partition_tree(c.oid) l JOIN pg_catalog.pg_inherits i ON i.inhrelid = l.relid
            WHERE l.relid <> c.oid
        ) END
    )::text AS text
    FROM pg_catalog.pg_class c
    CROSS JOIN LATERAL (
        SELECT json_agg(json_build_array(n.attnum, n.attname, n.atttypid, n.atttypmod) ORDER BY n.attnum) AS columns,
               -- A rewrite writes down the constant that rows from before adoption have here.
               string_agg(n.xmin::text, ',' ORDER BY n.attnum) FILTER (WHERE n.attname <> 'sync_xid') AS stamps
        FROM pg_catalog.pg_attribute n
        WHERE n.attrelid = c.oid AND n.attnum > 0 AND n.attname = ANY (source.columns::name[])
    ) a
    WHERE c.oid = to_regclass(source.name)
) AS how ON true
