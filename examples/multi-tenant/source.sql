-- The product's own tables, in a schema that all tenants share.
CREATE TABLE plan (code text PRIMARY KEY, price numeric NOT NULL);
CREATE TABLE customer (
    tenant_id uuid NOT NULL, number integer NOT NULL, name text NOT NULL, plan text NOT NULL,
    PRIMARY KEY (tenant_id, number)
);
CREATE TABLE label (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), tenant_id uuid NOT NULL, name text NOT NULL);
CREATE TABLE project (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(), tenant_id uuid NOT NULL, name text NOT NULL, customer integer NOT NULL
);
CREATE TABLE task (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(), tenant_id uuid NOT NULL, project_id uuid NOT NULL, parent_id uuid,
    title text NOT NULL, done boolean NOT NULL DEFAULT false, label_ids uuid[] NOT NULL DEFAULT '{}', deleted_at timestamptz
);
