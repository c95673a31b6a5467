-- What a setting is in this session, and the command or the place that it comes from.
SELECT s.name, current_setting(s.name) AS value,
       CASE s.source
           WHEN 'session' THEN 'set in this session'
           WHEN 'client' THEN 'set by the connection string or the client'
           WHEN 'configuration file' THEN 'set in postgresql.conf or by ALTER SYSTEM SET ' || s.name
           WHEN 'command line' THEN 'set on the server''s command line'
           WHEN 'environment variable' THEN 'set in the server''s environment'
           WHEN 'default' THEN 'the default'
           ELSE coalesce((
               SELECT 'set by ALTER'
                      || CASE WHEN d.setrole <> 0 THEN ' ROLE ' || quote_ident(r.rolname) ELSE '' END
                      || CASE
                             WHEN d.setdatabase <> 0 AND d.setrole <> 0 THEN ' IN DATABASE ' || quote_ident(b.datname)
                             WHEN d.setdatabase <> 0 THEN ' DATABASE ' || quote_ident(b.datname)
                             ELSE ''
                         END
                      || ' SET ' || s.name
               FROM pg_db_role_setting d
               LEFT JOIN pg_roles r ON r.oid = d.setrole
               LEFT JOIN pg_database b ON b.oid = d.setdatabase
               WHERE d.setrole IN (0, (SELECT u.oid FROM pg_roles u WHERE u.rolname = session_user))
                 AND d.setdatabase IN (0, (SELECT n.oid FROM pg_database n WHERE n.datname = current_database()))
                 AND EXISTS (SELECT FROM unnest(d.setconfig) c WHERE split_part(c, '=', 1) = s.name)
               ORDER BY d.setrole <> 0 DESC, d.setdatabase <> 0 DESC
               LIMIT 1
           ), 'set for the role or the database')
       END AS source
FROM pg_settings s
WHERE s.name = ANY ($1::text[]) AND NOT (s.unit = 'ms' AND s.setting = '0') AND NOT (s.unit = 'kB' AND s.setting = '-1')
