-- syncline.uuid5 by an extension that has SHA-1, where one is installed that every role may use: pgcrypto, or rather uuid-ossp.
-- Where its answer is another, or none, the function stays as it is: a library may refuse SHA-1.
DO $$
DECLARE
    asked constant uuid := '6ba7b811-9dad-11d1-80b4-00c04fd430c8';
    found record;
BEGIN
    FOR found IN
        SELECT e.extname AS name, n.nspname AS place
        FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
        JOIN (VALUES ('pgcrypto', '%I.digest(bytea, text)'), ('uuid-ossp', '%I.uuid_generate_v5(uuid, text)')) AS f (name, function)
            ON f.name = e.extname
        WHERE has_schema_privilege('public', n.oid, 'USAGE')
          AND has_function_privilege('public', to_regprocedure(format(f.function, n.nspname)), 'EXECUTE')
        ORDER BY e.extname
    LOOP
        BEGIN
            EXECUTE 'CREATE OR REPLACE FUNCTION syncline.uuid5(namespace uuid, name text) RETURNS uuid '
                || format(
                CASE found.name WHEN 'pgcrypto' THEN $made$
                    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $body$
                    DECLARE
                        hash bytea := %I.digest(uuid_send(namespace) || decode(replace(name, '\', '\\'), 'escape'), 'sha1');
                    BEGIN
                        RETURN encode(
                            set_byte(set_byte(substr(hash, 1, 16), 6, get_byte(hash, 6) & 15 | 80), 8, get_byte(hash, 8) & 63 | 128), 'hex'
                        )::uuid;
                    END
                    $body$
                $made$ ELSE $made$
                    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE RETURN %I.uuid_generate_v5(namespace, name)
                $made$ END, found.place
            );
            IF syncline.uuid5(asked, 'syncline') IS DISTINCT FROM 'a22840ef-bd81-5873-b5b8-e6a5f28cb5be' THEN
                RAISE EXCEPTION 'extension % makes other ids', found.name;
            END IF;
        EXCEPTION WHEN OTHERS THEN
            -- What this block did is undone.
            RAISE NOTICE '%', SQLERRM;
        END;
    END LOOP;
END
$$;

-- Keys that were read are noted for a few minutes, and hardly ever read again: to compress them takes longer than to write them.
ALTER TABLE sync_recent ALTER COLUMN keys SET STORAGE EXTERNAL;
