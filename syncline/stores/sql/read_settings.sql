-- Settings of one transaction that reads tables of other owners. An operator or function is found in pg_catalog or by its
-- full name; a policy or a view in place of a table is an error; no CHECK constraint is evaluated by the planner.
SET LOCAL search_path = pg_catalog, pg_temp;
SET LOCAL row_security = off;
SET LOCAL constraint_exclusion = off;
SELECT set_config('restrict_nonsystem_relation_kind', 'view, foreign-table', true)
WHERE current_setting('restrict_nonsystem_relation_kind', true) IS NOT NULL
