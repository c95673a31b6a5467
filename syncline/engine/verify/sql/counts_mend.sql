WITH mended AS (
    INSERT INTO sync_count AS c (counted, name, refused, entries)
    SELECT counted, name, refused, entries FROM (@{found}) AS f WHERE NOT same
    ON CONFLICT (counted, name, refused) DO UPDATE SET entries = excluded.entries
    RETURNING 1
)
SELECT count(*) FROM mended
