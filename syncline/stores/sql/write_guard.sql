-- The lock keeps out CREATE TRIGGER, RULE, INDEX, STATISTICS, INHERITS and every ALTER TABLE until this transaction ends, so what
-- is found here stays so. Readers and writers of the table go on.
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
        FROM pg_class c JOIN pg_roles o ON o.oid = c.relowner JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.oid = ANY (bare) AND NOT o.rolsuper AND o.rolname <> current_user AND c.relowner <> n.nspowner
          AND c.relowner <> (SELECT datdba FROM pg_database WHERE datname = current_database())
          AND NOT pg_has_role(n.nspowner, c.relowner, 'MEMBER') LIMIT 1;
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
                ('true', '0', 'now()', 'pg_current_xact_id()', '''-infinity''::timestamp with time zone')
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
