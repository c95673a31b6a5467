-- Another sync_tombstone with the keys that were in the one before: no cycle need have read them. What another cluster
-- stamped, before a dump was loaded, is stamped anew, or the cycles of this one would not reach it for years.
ALTER TABLE @{tombstones} RENAME TO sync_tombstone_before;
-- It keeps nothing that has a name which the new one is to have.
ALTER TABLE @{before} DROP CONSTRAINT IF EXISTS sync_tombstone_order, ALTER seq DROP IDENTITY IF EXISTS;
ALTER TABLE @{before} ALTER seq DROP NOT NULL, ALTER source_table DROP NOT NULL, ALTER key DROP NOT NULL,
    ALTER sync_xid DROP NOT NULL, ALTER deleted_at DROP NOT NULL;
@{create};
INSERT INTO @{tombstones} (source_table, key, sync_xid, deleted_at)
SELECT source_table, key, least(sync_xid, pg_current_xact_id()), deleted_at FROM @{before} ORDER BY sync_xid, seq;
-- Who may read or clear away the keys may do so still. Names travel as values: nothing of theirs is read as code.
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
