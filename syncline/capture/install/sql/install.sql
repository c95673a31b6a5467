-- Columns, indexes and tombstones that capture adds.

-- name: version
-- Stamps every row version with the id of the transaction that wrote it. A timestamp would be wrong: it is
-- taken when a transaction starts, shared by many rows, and skewed between writers. A transaction id and the
-- snapshot's xmin tell exactly which rows can no longer change after being read. One function per schema: the
-- owner of a shared one could run code in every other owner's writes.
CREATE OR REPLACE FUNCTION @{function}() RETURNS trigger
LANGUAGE plpgsql AS $$@{body}$$

-- name: tombstones
-- No index on the key: a key too long for it would make the writer's DELETE fail. Keys of a large DELETE are not compressed:
-- that would be a quarter of what it pays.
CREATE TABLE @{tombstones} (
    seq          bigint GENERATED ALWAYS AS IDENTITY,
    source_table text NOT NULL,
    key          text[] NOT NULL,
    sync_xid     xid8 NOT NULL DEFAULT pg_current_xact_id(),
    deleted_at   timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT sync_tombstone_order PRIMARY KEY (sync_xid, seq)
);
@{storage}

-- name: tombstone_storage
ALTER TABLE @{tombstones} ALTER key SET STORAGE EXTERNAL

-- name: whose
-- Whose a deleted key was, in the form of its type, where graphs share tables and each has one tenant's rows. An
-- empty one concerns every graph: the key is of a table without tenants, or from before.
DROP INDEX IF EXISTS @{index};
ALTER TABLE @{tombstones} ADD COLUMN IF NOT EXISTS tenant text NOT NULL DEFAULT '';
CREATE INDEX sync_tombstone_tenant ON @{tombstones} (tenant COLLATE "C", sync_xid, seq)

-- name: positions_whose
ALTER TABLE @{positions} ADD COLUMN IF NOT EXISTS tenant text NOT NULL DEFAULT ''

-- name: positions
-- Identifies this database's history: the engine writes a new token before it moves a cursor over what it has
-- read. A history without the token that the graph-db stores is another one.
CREATE TABLE @{positions} (
    reader        uuid PRIMARY KEY,
    branch        uuid NOT NULL,
    number        bigint NOT NULL,
    tokens        uuid[] NOT NULL,
    cleared_below bigint NOT NULL DEFAULT 0,
    written_at    timestamptz NOT NULL DEFAULT now()
)

-- name: column
-- A constant default rewrites nothing: existing rows read as 0, where every cursor begins.
ALTER TABLE @{table} ADD COLUMN sync_xid xid8 NOT NULL DEFAULT '0'

-- name: default
ALTER TABLE @{table} ALTER COLUMN sync_xid SET DEFAULT pg_current_xact_id()

-- name: epoch
-- A new sync_tombstone with the keys of the old one: no cycle may have read them. Keys stamped by another
-- cluster, before a dump was loaded, are stamped again, or this cluster's cycles would not reach them for
-- years.
ALTER TABLE @{tombstones} RENAME TO sync_tombstone_before;
-- Drops whatever has a name that the new table needs.
ALTER TABLE @{before} DROP CONSTRAINT IF EXISTS sync_tombstone_order, ALTER seq DROP IDENTITY IF EXISTS;
ALTER TABLE @{before} ALTER seq DROP NOT NULL, ALTER source_table DROP NOT NULL, ALTER key DROP NOT NULL,
    ALTER sync_xid DROP NOT NULL, ALTER deleted_at DROP NOT NULL;
@{create};
INSERT INTO @{tombstones} (source_table, key, sync_xid, deleted_at@{whose})
SELECT source_table, key, least(sync_xid, pg_current_xact_id()), deleted_at@{whose} FROM @{before} ORDER BY sync_xid, seq;
-- Roles that may read or prune the keys keep that privilege. Names are passed as values: none is read as
-- code.
SELECT set_config('syncline.before', '@{before_text}', true), set_config('syncline.tombstones', '@{tombstones_text}', true);
DO $rights$
DECLARE
    held record;
BEGIN
    FOR held IN
        SELECT a.privilege_type, CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END AS role,
               CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END AS further
        FROM pg_class c, aclexplode(c.relacl) AS a
        WHERE c.oid = current_setting('syncline.before')::regclass AND a.grantee <> c.relowner
    LOOP
        EXECUTE format('GRANT %s ON %s TO %s%s', held.privilege_type, current_setting('syncline.tombstones'), held.role,
                       held.further);
    END LOOP;
END
$rights$;
DROP TABLE @{before}

-- name: analyze
-- Postgres collects no statistics of a new column until a tenth of the rows has changed.
ANALYZE @{table} (sync_xid, @{key})

-- name: index
CREATE INDEX @{how}IF NOT EXISTS @{name} ON @{table} (@{tenant}sync_xid, @{key})

-- name: condition
-- In WHERE, which refuses what is no condition of one row: aggregates and window functions.
SELECT FROM @{table} WHERE (@{condition}) IS TRUE

-- name: unshared
-- Objects of schema syncline that are unused once $1 is no longer captured, as far as they are ours to drop.
SELECT 'capture_version' AS name
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname = 'syncline' AND p.proname = 'capture_version' AND pg_has_role(p.proowner, 'USAGE')
  AND NOT EXISTS (
      SELECT FROM pg_trigger t
      JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace m ON m.oid = c.relnamespace
      WHERE t.tgfoid = p.oid AND t.tgparentid = 0 AND m.nspname <> $1
  )
UNION ALL
SELECT 'listener'
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'syncline' AND c.relname = 'listener' AND pg_has_role(c.relowner, 'USAGE')
  AND NOT EXISTS (
      SELECT FROM pg_proc p JOIN pg_namespace m ON m.oid = p.pronamespace
      WHERE p.proname = 'sync_notify' AND m.nspname <> $1
  )
UNION ALL
SELECT 'token'
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname = 'syncline' AND p.proname = 'token' AND p.pronargs = 0 AND pg_has_role(p.proowner, 'USAGE')
  AND NOT EXISTS (
      SELECT FROM pg_proc o JOIN pg_namespace m ON m.oid = o.pronamespace
      WHERE o.proname = 'sync_notify' AND m.nspname <> $1
  )
UNION ALL
SELECT 'syncline'
FROM pg_namespace n
WHERE n.nspname = 'syncline' AND pg_has_role(n.nspowner, 'USAGE')
  AND NOT EXISTS (
      SELECT FROM pg_depend d
      WHERE d.refclassid = 'pg_namespace'::regclass AND d.refobjid = n.oid
        AND NOT EXISTS (
            SELECT FROM pg_proc p WHERE d.classid = 'pg_proc'::regclass AND p.oid = d.objid
            AND p.proname IN ('capture_version', 'token')
        )
        AND NOT EXISTS (
            SELECT FROM pg_class c WHERE d.classid = 'pg_class'::regclass AND c.oid = d.objid
            AND c.relname = 'listener'
        )
  )
