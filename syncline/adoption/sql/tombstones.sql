-- No index on the key: one that is too long for it would make the writer's DELETE fail.
CREATE TABLE @{tombstones} (
    seq          bigint GENERATED ALWAYS AS IDENTITY,
    source_table text NOT NULL,
    key          text[] NOT NULL,
    sync_xid     xid8 NOT NULL DEFAULT pg_current_xact_id(),
    deleted_at   timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT sync_tombstone_order PRIMARY KEY (sync_xid, seq)
)
