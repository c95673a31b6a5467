-- Loads that are read beside what is written meanwhile.

-- A cursor with `below` is that of a load, named 'sync_load/' and the table: it reads the rows of transactions below that
-- one, the table's own cursor those from there on.
ALTER TABLE sync_cursor ADD COLUMN below bigint;

-- Whether what the transaction of a token wrote is visible in a graph, and in its vectors; at once, without waiting.
-- `state`: visible, pending, parked, rejected, or covered: a later version of a row that it may have written is
-- parked or rejected. Raises invalid_parameter_value for what is no token, or one of another database or history.
-- Tells no more than counts, tables and SQLSTATEs, and only to a role that may use the schema.
CREATE OR REPLACE FUNCTION syncline.visible(
    graph_schema text, token text, OUT visible boolean, OUT vectors boolean, OUT state text, OUT reason text
) LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    parts   text[] := string_to_array(token, '.');
    xid     bigint;
    oldest  bigint;
    source  text;
    below   bigint;
    sources jsonb;
    cluster text;
    clean   boolean;
    latest  numeric;
    found   record;
    waiting bigint;
BEGIN
    IF token !~ '^[0-9]{1,20}[.][0-9]{1,10}([.][0-9]{1,18}){3}$' OR token IS NULL OR graph_schema IS NULL THEN
        RAISE EXCEPTION 'this is no token: take one by SELECT syncline.token() in the transaction that writes'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    -- It runs as its owner: only over that role's own tables, since a view or a policy of another would be code.
    SELECT count(*) FILTER (WHERE c.relkind = 'r' AND c.relowner = current_user::regrole) AS own,
           coalesce(string_agg(DISTINCT c.relowner::regrole::text, ', '), 'nobody') AS owners
    INTO found
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = graph_schema AND c.relname IN (
        'sync_state', 'sync_parked_row', 'sync_dead_letter', 'sync_outbox', 'sync_visible', 'sync_vector_delay', 'sync_count',
        'sync_second'
    );
    IF found.own <> 8 THEN
        RAISE EXCEPTION 'schema "%" has no graph that answers for tokens', graph_schema
            USING ERRCODE = 'invalid_parameter_value', HINT = format(
                'Name the schema of a graph; `syncline migrate` updates its bookkeeping. Only tables of %s, the owner of'
                ' syncline.visible, are read; those of this schema belong to %s.', current_user, found.owners
            );
    END IF;
    IF NOT has_schema_privilege(session_user, graph_schema, 'USAGE') THEN
        RAISE EXCEPTION 'permission denied for schema %', graph_schema USING ERRCODE = 'insufficient_privilege';
    END IF;
    source := array_to_string(parts[1:3], '.');
    xid := parts[4]::bigint;
    oldest := least(parts[5]::bigint, xid);
    EXECUTE format(
        'SELECT (s.visible ->> ''below'')::bigint, coalesce(s.visible -> ''sources'', ''[]''), s.visible_clean @> int8range($2, $1, ''[]''),'
        ' split_part(s.write_cluster, ''/'', 1) FROM %I.sync_state s', graph_schema
    ) INTO below, sources, clean, cluster USING xid, oldest;
    visible := false;
    vectors := false;
    state := 'pending';
    IF cluster <> parts[1] OR (
        sources <> '[]' AND NOT EXISTS (
            SELECT FROM jsonb_array_elements_text(sources) AS s (text)
            WHERE split_part(s.text, '.', 1) = parts[1] AND split_part(s.text, '.', 2) = parts[2]
        )
    ) THEN
        RAISE EXCEPTION 'this token is of another database than the one that graph "%" reads', graph_schema
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Take the token in the write-db of this graph.';
    END IF;
    IF NOT sources ? source THEN
        SELECT max(split_part(s.text, '.', 3)::numeric) INTO latest FROM jsonb_array_elements_text(sources) AS s (text);
        IF parts[3]::numeric < latest THEN
            RAISE EXCEPTION 'this token is of a past that graph "%" does not know: the write-db was restored, replaced or'
                ' started again since, or it is of a copy', graph_schema
                USING ERRCODE = 'invalid_parameter_value',
                      HINT = 'Whether that write still exists is unknown. Look there, and take another token.';
        END IF;
        reason := 'no run has read the write-db since its server was started';
        RETURN;
    END IF;
    -- While a load goes on, what was written since it began can be visible before what it has not read yet.
    IF xid >= coalesce(below, 0) AND NOT clean THEN
        reason := 'no run has applied it yet';
        RETURN;
    END IF;
    IF NOT clean THEN
        EXECUTE format(
            'SELECT p.table_name, p.waits_for_table FROM %I.sync_parked_row p'
            ' WHERE (p.image ->> ''sync_xid'')::bigint = $1 LIMIT 1', graph_schema
        ) INTO found USING xid;
        IF found.table_name IS NOT NULL THEN
            EXECUTE format(
                'SELECT count(*) FROM (SELECT FROM %I.sync_parked_row p'
                ' WHERE (p.image ->> ''sync_xid'')::bigint = $1 LIMIT 1000) p', graph_schema
            ) INTO waiting USING xid;
            state := 'parked';
            reason := format(
                '%s rows of it are parked, of %s under a row of %s that has not arrived', waiting, found.table_name,
                found.waits_for_table
            );
            RETURN;
        END IF;
        EXECUTE format(
            'SELECT d.table_name, d.sqlstate FROM %I.sync_dead_letter d WHERE d.version = $1 LIMIT 1', graph_schema
        ) INTO found USING xid;
        IF found.table_name IS NOT NULL THEN
            state := 'rejected';
            reason := format('the graph-db rejected a row of it in %s (SQLSTATE %s)', found.table_name, found.sqlstate);
            RETURN;
        END IF;
        -- A later version replaces the one that waits, so it may be in the way of this one. It has a lower id if its
        -- transaction was open when this one ended.
        EXECUTE format(
            'SELECT coalesce((SELECT (image ->> ''sync_xid'')::bigint FROM %1$I.sync_parked_row'
            ' WHERE (image ->> ''sync_xid'')::bigint >= $1 ORDER BY (image ->> ''sync_xid'')::bigint LIMIT 1),'
            ' (SELECT version FROM %1$I.sync_dead_letter WHERE version >= $1 ORDER BY version LIMIT 1))', graph_schema
        ) INTO waiting USING oldest;
        IF waiting IS NOT NULL THEN
            state := 'covered';
            reason := format(
                'rows of other transactions are parked or rejected (the first of transaction %s), which may have'
                ' overwritten rows of it', waiting
            );
            RETURN;
        END IF;
    END IF;
    visible := true;
    state := 'visible';
    -- Collection by collection, by the indexes of the outbox: it may be long. Of the generation that readers query.
    EXECUTE format(
        'SELECT c.name AS collection, NOT l.owed AS refused, d.collection IS NOT NULL AS delayed'
        ' FROM (SELECT DISTINCT name FROM %1$I.sync_count WHERE counted = ''sync_outbox'' AND entries > 0'
        ' AND (name LIKE ''%%@second'') = EXISTS (SELECT FROM %1$I.sync_second WHERE switched_at IS NOT NULL)) c'
        ' CROSS JOIN (SELECT coalesce((SELECT v.seq FROM %1$I.sync_visible v WHERE v.below <= $1'
        ' ORDER BY v.below DESC LIMIT 1), 0) AS seq) b'
        ' CROSS JOIN LATERAL (SELECT coalesce((SELECT o.seq FROM %1$I.sync_outbox o WHERE o.collection = c.name'
        ' AND o.error IS NULL ORDER BY o.seq DESC LIMIT 1) > b.seq, false) AS owed, EXISTS (SELECT FROM %1$I.sync_outbox o'
        ' WHERE o.collection = c.name AND o.error IS NOT NULL AND o.seq > b.seq) AS refused) l'
        ' LEFT JOIN %1$I.sync_vector_delay d ON d.collection = c.name'
        ' WHERE l.owed OR l.refused ORDER BY l.owed DESC LIMIT 1', graph_schema
    ) INTO found USING xid;
    vectors := found.collection IS NULL;
    IF NOT vectors THEN
        reason := format(
            'its vectors may not be written yet: collection %s %s', found.collection,
            CASE WHEN found.delayed THEN 'is delayed' WHEN found.refused THEN 'has refused points' ELSE 'has points to write' END
        );
    END IF;
END
$$;
