-- Which version of which Worker Deployment a worker is: a run that is pinned to one is served by its workers alone.
-- Runs with search_path set to schema syncline.

ALTER TABLE workers ADD COLUMN deployment_version text;
