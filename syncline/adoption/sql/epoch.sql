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
DROP TABLE @{before}
