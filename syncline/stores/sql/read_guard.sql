-- Planning a query evaluates constants in expressions of indexes, statistics and partition keys, and a cast between text and a
-- type that somebody made calls what they gave it: all of that as whoever reads. A function of a role that is neither a
-- superuser nor this one is refused, unless its owner is the only one who has captured tables in this database. Most tables
-- have nothing of the kind, which takes a few look-ups by index.
LOCK TABLE @{tables} IN ACCESS SHARE MODE;
DO @{tag}
DECLARE
    parts oid[] := ARRAY(SELECT name::regclass::oid FROM unnest(@{names}) AS name);
    problem text;
BEGIN
    IF EXISTS (SELECT FROM pg_class WHERE oid = ANY (parts) AND relhassubclass) THEN
        parts := ARRAY(
            WITH RECURSIVE part AS (
                SELECT unnest(parts) AS oid
                UNION
                SELECT i.inhrelid FROM part p JOIN pg_inherits i ON i.inhparent = p.oid
            )
            SELECT oid FROM part
        );
    END IF;
    SELECT oid::regclass || ' is no ordinary table any more' INTO problem
    FROM pg_class WHERE oid = ANY (parts) AND relkind NOT IN ('r', 'p');
    IF problem IS NOT NULL THEN
        RAISE insufficient_privilege USING MESSAGE = problem || ': reading it would run what its owner wrote. '
            || 'Put the table back, then run `syncline graph adopt`.';
    END IF;
    IF NOT EXISTS (
            SELECT FROM pg_index WHERE indrelid = ANY (parts) AND (indexprs IS NOT NULL OR indpred IS NOT NULL))
        AND NOT EXISTS (SELECT FROM pg_statistic_ext WHERE stxrelid = ANY (parts))
        AND NOT EXISTS (SELECT FROM pg_partitioned_table WHERE partrelid = ANY (parts) AND partexprs IS NOT NULL)
        AND NOT EXISTS (SELECT FROM pg_cast WHERE oid >= 16384 AND castfunc <> 0)
    THEN
        RETURN;
    END IF;
    WITH RECURSIVE used AS (
        SELECT attrelid AS part, atttypid AS type FROM pg_attribute
        WHERE attrelid = ANY (parts) AND attnum > 0 AND NOT attisdropped
        UNION
        -- A domain, an array, a row or a range is cast by the casts of what it is made of.
        SELECT u.part, of.type
        FROM used u JOIN pg_type t ON t.oid = u.type
        CROSS JOIN LATERAL (
            SELECT t.typbasetype WHERE t.typbasetype <> 0
            UNION ALL SELECT t.typelem WHERE t.typelem <> 0
            UNION ALL SELECT a.atttypid FROM pg_attribute a
                WHERE t.typrelid <> 0 AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
            UNION ALL SELECT r.rngsubtype FROM pg_range r WHERE t.oid IN (r.rngtypid, r.rngmultitypid)
        ) AS of (type)
    ), objects AS (
        SELECT indrelid AS part, 'pg_class'::regclass::oid AS classid, indexrelid AS objid
        FROM pg_index WHERE indrelid = ANY (parts) AND (indexprs IS NOT NULL OR indpred IS NOT NULL)
        UNION ALL
        SELECT stxrelid, 'pg_statistic_ext'::regclass::oid, oid FROM pg_statistic_ext WHERE stxrelid = ANY (parts)
        UNION ALL
        SELECT partrelid, 'pg_class'::regclass::oid, partrelid
        FROM pg_partitioned_table WHERE partrelid = ANY (parts) AND partexprs IS NOT NULL
    ), called AS (
        SELECT o.part, coalesce(e.oprcode, d.refobjid) AS function
        FROM objects o
        JOIN pg_depend d ON d.classid = o.classid AND d.objid = o.objid
            AND d.refclassid IN ('pg_proc'::regclass, 'pg_operator'::regclass)
        LEFT JOIN pg_operator e ON d.refclassid = 'pg_operator'::regclass AND e.oid = d.refobjid
        UNION ALL
        SELECT u.part, k.castfunc
        FROM used u
        JOIN pg_type t ON t.oid = u.type AND t.typnamespace <> 'pg_catalog'::regnamespace
        JOIN pg_cast k ON t.oid IN (k.castsource, k.casttarget)
        WHERE k.oid >= 16384 AND k.castfunc <> 0
    )
    SELECT c.part::regclass || ' has an index, statistics, a partition key or a type that calls ' || f.oid::regprocedure
        || ' of role ' || quote_ident(r.rolname) INTO problem
    FROM called c
    JOIN pg_proc f ON f.oid = c.function
    JOIN pg_roles r ON r.oid = f.proowner AND NOT r.rolsuper AND r.rolname <> current_user
    WHERE (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) OR EXISTS (
        SELECT FROM pg_class s JOIN pg_roles o ON o.oid = s.relowner AND NOT o.rolsuper
        WHERE s.relname = 'sync_tombstone' AND s.relkind = 'r' AND s.relowner <> f.proowner
    )
    LIMIT 1;
    IF problem IS NOT NULL THEN
        RAISE insufficient_privilege USING MESSAGE = problem || ', so reading it would run that as ' || current_user
            || '. Drop it, or give the graph a write store of its own, with a role that may read nothing else.';
    END IF;
END
@{tag}
