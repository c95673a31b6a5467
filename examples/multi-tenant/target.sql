-- What readers of one tenant have: a schema for each.
CREATE TABLE plans (code text PRIMARY KEY, price numeric);
CREATE TABLE customers (
    id uuid PRIMARY KEY, key integer NOT NULL, name text, plan text NOT NULL REFERENCES plans (code),
    sync_version bigint, sync_run bigint
);
CREATE TABLE labels (id uuid PRIMARY KEY, name text, sync_version bigint, sync_run bigint);
CREATE TABLE projects (
    id uuid PRIMARY KEY, name text, customer uuid NOT NULL REFERENCES customers (id),
    sync_version bigint, sync_run bigint
);
CREATE TABLE tasks (
    id uuid PRIMARY KEY, project_id uuid NOT NULL REFERENCES projects (id), parent_id uuid REFERENCES tasks (id),
    title text, done boolean, sync_version bigint, sync_run bigint
);
CREATE TABLE task_labels (
    task_id uuid NOT NULL REFERENCES tasks (id) ON DELETE CASCADE,
    label_id uuid NOT NULL REFERENCES labels (id) ON DELETE CASCADE, PRIMARY KEY (task_id, label_id)
);
