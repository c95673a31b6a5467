-- The foreign keys that act on rows of others when a row of this table leaves, and the columns of those others.
SELECT f.conrelid::text::bigint AS child, f.confdeltype::text AS action,
       (SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.oid = f.conrelid) AS name,
       ARRAY(
           SELECT a.attname::text FROM unnest(f.conkey) WITH ORDINALITY k (attnum, place)
           JOIN pg_attribute a ON a.attrelid = f.conrelid AND a.attnum = k.attnum ORDER BY k.place
       ) AS columns,
       ARRAY(
           SELECT a.attname::text FROM unnest(f.confkey) WITH ORDINALITY k (attnum, place)
           JOIN pg_attribute a ON a.attrelid = f.confrelid AND a.attnum = k.attnum ORDER BY k.place
       ) AS referenced,
       ARRAY(
           SELECT a.attname::text FROM pg_index i, unnest(i.indkey::int2[]) k
           JOIN pg_attribute a ON a.attnum = k
           WHERE i.indrelid = f.conrelid AND i.indisprimary AND a.attrelid = f.conrelid
       ) AS key,
       ARRAY(
           SELECT a.attname::text FROM pg_attribute a
           WHERE a.attrelid = f.conrelid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
           ORDER BY a.attnum
       ) AS written
FROM pg_constraint f
WHERE f.contype = 'f' AND f.confrelid = $1::text::oid AND f.confdeltype <> 'a' AND f.conparentid = 0
ORDER BY f.conname, f.oid
