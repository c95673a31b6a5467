CREATE TEMP TABLE IF NOT EXISTS @{stage} (
    sync_xid bigint NOT NULL, seq bigint NOT NULL, source_table text NOT NULL, key text[] NOT NULL, alive boolean NOT NULL
) ON COMMIT DELETE ROWS
