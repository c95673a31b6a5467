-- Rebuilds: which graphs have a second generation made by their own provider, and which one was live at its start.
-- Runs with search_path set to schema syncline.

CREATE TABLE graph_rebuilds (
    graph_id        uuid PRIMARY KEY REFERENCES graphs (id) ON DELETE CASCADE,
    -- The graph's prefix when it was started. A switch swaps the prefix in the graph's record, so this tells whether
    -- readers see the old generation or the new one, however a step was interrupted.
    first_prefix    text NOT NULL,
    -- Rows that a cycle of the new generation reads in a second; null: as many as it can.
    rows_per_second integer
        CONSTRAINT graph_rebuilds_rows_valid CHECK (rows_per_second > 0),
    started_at      timestamptz NOT NULL DEFAULT now()
);

-- Whoever may change records may rebuild graphs, and the workers' roles may change them.
DO $$
DECLARE
    given record;
BEGIN
    FOR given IN
        SELECT DISTINCT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(r.rolname) END AS whom
        FROM pg_class c CROSS JOIN aclexplode(c.relacl) a LEFT JOIN pg_roles r ON r.oid = a.grantee
        WHERE c.oid = to_regclass('graphs') AND a.grantee <> c.relowner
          AND (a.grantee = 0 OR r.oid IS NOT NULL) AND a.privilege_type = 'UPDATE'
        ORDER BY 1
    LOOP
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON graph_rebuilds TO %s', given.whom);
    END LOOP;
END
$$;
