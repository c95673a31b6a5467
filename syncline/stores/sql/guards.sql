-- Checks of a connection before it reads or writes tables of other owners.

-- name: read_settings
-- Settings of a transaction that reads tables of other owners. Operators and functions resolve to pg_catalog
-- or by their full name; a policy, or a view in place of a table, is an error; the planner evaluates no CHECK
-- constraint.
SET LOCAL search_path = pg_catalog, pg_temp;
SET LOCAL row_security = off;
SET LOCAL constraint_exclusion = off;
SELECT set_config('restrict_nonsystem_relation_kind', 'view, foreign-table', true)
WHERE current_setting('restrict_nonsystem_relation_kind', true) IS NOT NULL

-- name: read_lock
LOCK TABLE @{tables} IN ACCESS SHARE MODE

-- name: read_doubt
-- A row if one of these tables has anything of what `read_guard` looks at more closely. Most have not, and this
-- costs half as much.
WITH asked AS MATERIALIZED (SELECT ARRAY(SELECT name::regclass::oid FROM unnest(@{names}) AS name) AS oids)
SELECT FROM asked
WHERE EXISTS (SELECT FROM pg_class WHERE oid = ANY (oids) AND (relkind <> 'r' OR relhassubclass))
   OR EXISTS (SELECT FROM pg_index WHERE indrelid = ANY (oids) AND (indexprs IS NOT NULL OR indpred IS NOT NULL))
   OR EXISTS (SELECT FROM pg_statistic_ext WHERE stxrelid = ANY (oids))
   OR EXISTS (SELECT FROM pg_cast WHERE oid >= 16384 AND castfunc <> 0)

-- name: read_floor
-- Raises on a standby that has not replayed the end of every transaction below this one: there is no parameter of that name.
-- Its snapshot has no list of open transactions, so its xmin is all that it knows.
SELECT CASE WHEN pg_is_in_recovery() AND pg_snapshot_xmin(pg_current_snapshot()) < '@{below}'::xid8
    THEN current_setting('@{parameter}') END

-- name: read_guard
-- Planning a query evaluates constants in expressions of indexes, statistics and partition keys, and a cast
-- between text and a user-defined type calls that type's functions: all with the reader's privileges. A
-- function of a role that is neither a superuser nor this one is rejected, unless its owner is the only one
-- with captured tables in this database. Most tables have nothing of the kind, which takes a few index
-- lookups. `read_lock` comes first.
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

-- name: write_guard
-- The lock keeps out CREATE TRIGGER, RULE, INDEX, STATISTICS, INHERITS and every ALTER TABLE until this
-- transaction ends, so the result of these checks stays valid. Readers and writers of the table continue.
LOCK TABLE @{only} IN SHARE UPDATE EXCLUSIVE MODE@{nowait};
DO @{tag}
DECLARE
    bare oid[] := ARRAY(SELECT name::regclass::oid FROM unnest(@{names}) AS name);
    problem text;
BEGIN
    SELECT oid::regclass || ' is no ordinary table, or has row level security' INTO problem
    FROM pg_class WHERE oid = ANY (bare) AND (relkind <> 'r' OR relispartition OR relrowsecurity);
    IF problem IS NULL THEN
        SELECT tgrelid::regclass || ' has trigger or foreign key ' || quote_ident(tgname) INTO problem
        FROM pg_trigger WHERE tgrelid = ANY (bare) LIMIT 1;
    END IF;
    IF problem IS NULL THEN
        SELECT ev_class::regclass || ' has rule ' || quote_ident(rulename) INTO problem
        FROM pg_rewrite WHERE ev_class = ANY (bare) LIMIT 1;
    END IF;
    IF problem IS NULL THEN
        SELECT b::regclass || ' inherits or is inherited from' INTO problem
        FROM unnest(bare) AS b WHERE EXISTS (SELECT FROM pg_inherits WHERE inhparent = b OR inhrelid = b) LIMIT 1;
    END IF;
    IF problem IS NULL THEN
        SELECT a.attrelid::regclass || ' has column ' || quote_ident(a.attname) || ', which is generated or of a type that '
            || 'is not built in' INTO problem
        FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
        WHERE a.attrelid = ANY (bare) AND a.attnum > 0 AND NOT a.attisdropped
          AND (t.typnamespace <> 'pg_catalog'::regnamespace OR a.attgenerated <> '') LIMIT 1;
    END IF;
    IF problem IS NULL THEN
        -- What is built in has no entry in pg_depend.
        SELECT o.relation::regclass || ' has an index, statistics, a constraint or a default that calls what is not built in'
        INTO problem
        FROM (
            SELECT indrelid AS relation, 'pg_class'::regclass::oid AS classid, indexrelid AS objid
            FROM pg_index WHERE indrelid = ANY (bare)
            UNION ALL
            SELECT stxrelid, 'pg_statistic_ext'::regclass, oid FROM pg_statistic_ext WHERE stxrelid = ANY (bare)
            UNION ALL
            SELECT conrelid, 'pg_constraint'::regclass, oid FROM pg_constraint WHERE conrelid = ANY (bare)
            UNION ALL
            SELECT adrelid, 'pg_attrdef'::regclass, oid FROM pg_attrdef WHERE adrelid = ANY (bare)
        ) AS o
        JOIN pg_depend d ON d.classid = o.classid AND d.objid = o.objid
        WHERE d.refclassid IN ('pg_proc'::regclass, 'pg_operator'::regclass, 'pg_opclass'::regclass) LIMIT 1;
    END IF;
    IF problem IS NULL THEN
        SELECT c.oid::regclass || ' belongs to ' || quote_ident(o.rolname) || ', who has no other part in that schema'
        INTO problem
        -- public belongs to pg_database_owner, whose one member is the database's owner.
        FROM pg_class c JOIN pg_roles o ON o.oid = c.relowner JOIN pg_namespace n ON n.oid = c.relnamespace
        JOIN pg_database d ON d.datname = current_database()
        WHERE c.oid = ANY (bare) AND NOT o.rolsuper AND o.rolname <> current_user AND c.relowner <> n.nspowner
          AND c.relowner <> d.datdba
          AND NOT pg_has_role(
              CASE n.nspowner WHEN 'pg_database_owner'::regrole THEN d.datdba ELSE n.nspowner END, c.relowner, 'MEMBER'
          ) LIMIT 1;
    END IF;
    IF problem IS NULL THEN
        -- Expressions are run as whoever writes. That one calls only what is built in says nothing (ts_rewrite runs any query),
        -- and the constraint of a domain is no entry of the expression's: so nothing is let by but what adoption makes.
        SELECT o.relation::regclass || ' has ' || o.what || ' that adoption has not made' INTO problem
        FROM (
            SELECT indrelid AS relation, 'an index on an expression' AS what
            FROM pg_index WHERE indrelid = ANY (bare) AND (indexprs IS NOT NULL OR indpred IS NOT NULL)
            UNION ALL
            SELECT conrelid, 'constraint ' || quote_ident(conname) FROM pg_constraint
            WHERE conrelid = ANY (bare) AND contype NOT IN ('p', 'u', 'n') AND pg_get_constraintdef(oid) <> 'CHECK (one)'
            UNION ALL
            SELECT adrelid, 'a default' FROM pg_attrdef
            WHERE adrelid = ANY (bare) AND pg_get_expr(adbin, adrelid) NOT IN
                ('true', '0', 'now()', 'pg_current_xact_id()', '''-infinity''::timestamp with time zone', '''''::text')
        ) AS o LIMIT 1;
    END IF;
    IF problem IS NULL THEN
        -- No lock keeps a schema from being renamed, and another one from taking its name before the next statement.
        SELECT 'schema ' || quote_ident(n.nspname) || ' belongs to ' || quote_ident(o.rolname) || ', who has CREATE on the '
            || 'database and could put another one in its place' INTO problem
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_roles o ON o.oid = n.nspowner
        WHERE c.oid = ANY (bare) AND NOT o.rolsuper AND o.rolname <> current_user
          AND n.nspowner <> (SELECT datdba FROM pg_database WHERE datname = current_database())
          AND has_database_privilege(n.nspowner, current_database(), 'CREATE')
          AND EXISTS (
              SELECT FROM pg_class s JOIN pg_roles r ON r.oid = s.relowner AND NOT r.rolsuper
              WHERE s.relname = 'sync_tombstone' AND s.relkind = 'r' AND s.relowner <> c.relowner
          ) LIMIT 1;
    END IF;
    IF problem IS NOT NULL THEN
        RAISE insufficient_privilege USING MESSAGE = problem || ', so nothing is written there. Drop that; '
            || '`syncline graph adopt` makes of it what it was.';
    END IF;
END
@{tag}
