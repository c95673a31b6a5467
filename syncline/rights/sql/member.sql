-- On PostgreSQL 16 and newer the worker has the owner's rights only while it acts as the owner (SYNCLINE_OWNER_ROLE).
DO @{tag}
BEGIN
    EXECUTE format('GRANT %I TO %I', @{owner}, @{worker}) || CASE
        WHEN current_setting('server_version_num')::int >= 160000 THEN ' WITH INHERIT FALSE, SET TRUE'
        ELSE ''
    END;
END @{tag};
