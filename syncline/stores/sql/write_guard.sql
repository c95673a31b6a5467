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
    IF problem IS NOT NULL THEN
        RAISE insufficient_privilege USING MESSAGE = problem || ', so nothing is written there. Drop that; '
            || '`syncline graph adopt` makes of it what it was.';
    END IF;
END
@{tag}
