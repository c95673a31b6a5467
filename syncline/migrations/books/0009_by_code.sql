-- Runs with search_path set to the graph's schema.

-- Which refusals code of the database raised: their text may be a row's, whatever SQLSTATE they bear.
ALTER TABLE sync_dead_letter ADD COLUMN by_code boolean NOT NULL DEFAULT false;

-- Who has started the run that did it, as Temporal has it, beside whom its input says.
ALTER TABLE sync_audit ADD COLUMN starter text;

-- As `attempt`, and tells whether RAISE of PL/pgSQL said it. A new name: workers of the release before call the other.
CREATE OR REPLACE FUNCTION syncline.try_part(
    statement text, low tid, high tid,
    OUT changed bigint, OUT state text, OUT message text, OUT constraint_name text, OUT by_code boolean
) LANGUAGE plpgsql AS $$
DECLARE
    context text;
BEGIN
    EXECUTE statement INTO changed USING low, high;
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, constraint_name = CONSTRAINT_NAME,
        context = PG_EXCEPTION_CONTEXT;
    by_code := context LIKE '%RAISE%';
END
$$;
