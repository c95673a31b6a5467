-- The engine's bookkeeping tables in a graph-db, for any table map. Runs with search_path set to the graph's schema.

CREATE SCHEMA IF NOT EXISTS syncline;

-- The id of a TEXT key: the first 16 bytes of its SHA-256, with the version byte set to 0x80 (UUIDv8,
-- RFC 9562) and the variant byte to 0x80. The same function in Python: syncline.engine.keys.key_uuid.
-- decode(replace(…), 'escape') is convert_to(key, 'UTF8') in an immutable form: only an immutable body is
-- inlined into the caller's query, which is three times as fast, and allowed in a generated column.
CREATE OR REPLACE FUNCTION syncline.key_uuid(key text) RETURNS uuid
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN encode(
    substr(
        set_byte(set_byte(sha256(decode(replace(key, '\', '\\'), 'escape')), 6, 128), 8, 128), 1, 16
    ), 'hex'
)::uuid;

-- The id of a row in these tables, whatever its key: for one column, the row's own id; for several, the id of
-- their ids. Long keys fit no index; their ids do. The same function in Python:
-- syncline.engine.keys.row_uuid.
CREATE OR REPLACE FUNCTION syncline.parts_uuid(key text[]) RETURNS uuid
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN syncline.key_uuid((
    SELECT string_agg(syncline.key_uuid(part)::text, '' ORDER BY place)
    FROM unnest(key) WITH ORDINALITY AS parts (part, place)
));

-- Not STRICT, and the query apart: so it is inlined, which is quicker for a key of one column.
CREATE OR REPLACE FUNCTION syncline.row_uuid(key text[]) RETURNS uuid
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN cardinality(key) = 1 THEN syncline.key_uuid(key[1]) ELSE syncline.parts_uuid(key) END;

-- The date that a key has as text in ISO 8601: immutable, since that is one date under every DateStyle.
CREATE OR REPLACE FUNCTION syncline.key_date(key text) RETURNS date
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE SET datestyle = 'ISO, MDY'
RETURN key::date;

-- The same for timestamps; one with a zone is written in UTC.
CREATE OR REPLACE FUNCTION syncline.key_timestamp(key text) RETURNS timestamp
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE SET datestyle = 'ISO, MDY'
RETURN key::timestamp;

CREATE OR REPLACE FUNCTION syncline.key_timestamptz(key text) RETURNS timestamptz
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE SET datestyle = 'ISO, MDY' SET timezone = 'UTC'
RETURN key::timestamptz;

-- The uuid of version 5 (RFC 9562) of a name. Core PostgreSQL has no SHA-1, so it is computed here, block by
-- block, five steps of the 80 in each turn of a loop: 30 times as slow as key_uuid. No query in it: that is planned
-- in every call where plans are made anew. Where extension uuid-ossp is installed, its function takes over.
CREATE OR REPLACE FUNCTION syncline.uuid5(namespace uuid, name text) RETURNS uuid
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    whole constant bigint := 4294967295;
    data bytea := uuid_send(namespace) || decode(replace(name, '\', '\\'), 'escape');
    size constant bigint := length(data);
    w bigint[];
    x bigint;
    h0 bigint := 1732584193;
    h1 bigint := 4023233417;
    h2 bigint := 2562383102;
    h3 bigint := 271733878;
    h4 bigint := 3285377520;
    a bigint;
    b bigint;
    c bigint;
    d bigint;
    e bigint;
    i int;
BEGIN
    data := data || '\x80'::bytea || decode(repeat('00', ((119 - size % 64) % 64)::int), 'hex') || int8send(size * 8);
    FOR block IN 0 .. length(data) / 64 - 1 LOOP
        i := block * 64;
        w := ARRAY[
            (get_byte(data, i)::bigint << 24) + (get_byte(data, i + 1) << 16) + (get_byte(data, i + 2) << 8) + get_byte(data, i + 3),
            (get_byte(data, i + 4)::bigint << 24) + (get_byte(data, i + 5) << 16) + (get_byte(data, i + 6) << 8) + get_byte(data, i + 7),
            (get_byte(data, i + 8)::bigint << 24) + (get_byte(data, i + 9) << 16) + (get_byte(data, i + 10) << 8) + get_byte(data, i + 11),
            (get_byte(data, i + 12)::bigint << 24) + (get_byte(data, i + 13) << 16) + (get_byte(data, i + 14) << 8) + get_byte(data, i + 15),
            (get_byte(data, i + 16)::bigint << 24) + (get_byte(data, i + 17) << 16) + (get_byte(data, i + 18) << 8) + get_byte(data, i + 19),
            (get_byte(data, i + 20)::bigint << 24) + (get_byte(data, i + 21) << 16) + (get_byte(data, i + 22) << 8) + get_byte(data, i + 23),
            (get_byte(data, i + 24)::bigint << 24) + (get_byte(data, i + 25) << 16) + (get_byte(data, i + 26) << 8) + get_byte(data, i + 27),
            (get_byte(data, i + 28)::bigint << 24) + (get_byte(data, i + 29) << 16) + (get_byte(data, i + 30) << 8) + get_byte(data, i + 31),
            (get_byte(data, i + 32)::bigint << 24) + (get_byte(data, i + 33) << 16) + (get_byte(data, i + 34) << 8) + get_byte(data, i + 35),
            (get_byte(data, i + 36)::bigint << 24) + (get_byte(data, i + 37) << 16) + (get_byte(data, i + 38) << 8) + get_byte(data, i + 39),
            (get_byte(data, i + 40)::bigint << 24) + (get_byte(data, i + 41) << 16) + (get_byte(data, i + 42) << 8) + get_byte(data, i + 43),
            (get_byte(data, i + 44)::bigint << 24) + (get_byte(data, i + 45) << 16) + (get_byte(data, i + 46) << 8) + get_byte(data, i + 47),
            (get_byte(data, i + 48)::bigint << 24) + (get_byte(data, i + 49) << 16) + (get_byte(data, i + 50) << 8) + get_byte(data, i + 51),
            (get_byte(data, i + 52)::bigint << 24) + (get_byte(data, i + 53) << 16) + (get_byte(data, i + 54) << 8) + get_byte(data, i + 55),
            (get_byte(data, i + 56)::bigint << 24) + (get_byte(data, i + 57) << 16) + (get_byte(data, i + 58) << 8) + get_byte(data, i + 59),
            (get_byte(data, i + 60)::bigint << 24) + (get_byte(data, i + 61) << 16) + (get_byte(data, i + 62) << 8) + get_byte(data, i + 63)
        ];
        FOR n IN 17 .. 80 LOOP
            x := w[n - 3] # w[n - 8] # w[n - 14] # w[n - 16];
            w[n] := ((x << 1) | (x >> 31)) & whole;
        END LOOP;
        a := h0; b := h1; c := h2; d := h3; e := h4;
        i := 1;
        WHILE i <= 20 LOOP
            e := (((a << 5) | (a >> 27)) & whole) + (d # (b & (c # d))) + e + 1518500249 + w[i] & whole;
            b := ((b << 30) | (b >> 2)) & whole;
            d := (((e << 5) | (e >> 27)) & whole) + (c # (a & (b # c))) + d + 1518500249 + w[i + 1] & whole;
            a := ((a << 30) | (a >> 2)) & whole;
            c := (((d << 5) | (d >> 27)) & whole) + (b # (e & (a # b))) + c + 1518500249 + w[i + 2] & whole;
            e := ((e << 30) | (e >> 2)) & whole;
            b := (((c << 5) | (c >> 27)) & whole) + (a # (d & (e # a))) + b + 1518500249 + w[i + 3] & whole;
            d := ((d << 30) | (d >> 2)) & whole;
            a := (((b << 5) | (b >> 27)) & whole) + (e # (c & (d # e))) + a + 1518500249 + w[i + 4] & whole;
            c := ((c << 30) | (c >> 2)) & whole;
            i := i + 5;
        END LOOP;
        WHILE i <= 40 LOOP
            e := (((a << 5) | (a >> 27)) & whole) + (b # c # d) + e + 1859775393 + w[i] & whole;
            b := ((b << 30) | (b >> 2)) & whole;
            d := (((e << 5) | (e >> 27)) & whole) + (a # b # c) + d + 1859775393 + w[i + 1] & whole;
            a := ((a << 30) | (a >> 2)) & whole;
            c := (((d << 5) | (d >> 27)) & whole) + (e # a # b) + c + 1859775393 + w[i + 2] & whole;
            e := ((e << 30) | (e >> 2)) & whole;
            b := (((c << 5) | (c >> 27)) & whole) + (d # e # a) + b + 1859775393 + w[i + 3] & whole;
            d := ((d << 30) | (d >> 2)) & whole;
            a := (((b << 5) | (b >> 27)) & whole) + (c # d # e) + a + 1859775393 + w[i + 4] & whole;
            c := ((c << 30) | (c >> 2)) & whole;
            i := i + 5;
        END LOOP;
        WHILE i <= 60 LOOP
            e := (((a << 5) | (a >> 27)) & whole) + ((b & c) | (d & (b | c))) + e + 2400959708 + w[i] & whole;
            b := ((b << 30) | (b >> 2)) & whole;
            d := (((e << 5) | (e >> 27)) & whole) + ((a & b) | (c & (a | b))) + d + 2400959708 + w[i + 1] & whole;
            a := ((a << 30) | (a >> 2)) & whole;
            c := (((d << 5) | (d >> 27)) & whole) + ((e & a) | (b & (e | a))) + c + 2400959708 + w[i + 2] & whole;
            e := ((e << 30) | (e >> 2)) & whole;
            b := (((c << 5) | (c >> 27)) & whole) + ((d & e) | (a & (d | e))) + b + 2400959708 + w[i + 3] & whole;
            d := ((d << 30) | (d >> 2)) & whole;
            a := (((b << 5) | (b >> 27)) & whole) + ((c & d) | (e & (c | d))) + a + 2400959708 + w[i + 4] & whole;
            c := ((c << 30) | (c >> 2)) & whole;
            i := i + 5;
        END LOOP;
        WHILE i <= 80 LOOP
            e := (((a << 5) | (a >> 27)) & whole) + (b # c # d) + e + 3395469782 + w[i] & whole;
            b := ((b << 30) | (b >> 2)) & whole;
            d := (((e << 5) | (e >> 27)) & whole) + (a # b # c) + d + 3395469782 + w[i + 1] & whole;
            a := ((a << 30) | (a >> 2)) & whole;
            c := (((d << 5) | (d >> 27)) & whole) + (e # a # b) + c + 3395469782 + w[i + 2] & whole;
            e := ((e << 30) | (e >> 2)) & whole;
            b := (((c << 5) | (c >> 27)) & whole) + (d # e # a) + b + 3395469782 + w[i + 3] & whole;
            d := ((d << 30) | (d >> 2)) & whole;
            a := (((b << 5) | (b >> 27)) & whole) + (c # d # e) + a + 3395469782 + w[i + 4] & whole;
            c := ((c << 30) | (c >> 2)) & whole;
            i := i + 5;
        END LOOP;
        h0 := h0 + a & whole;
        h1 := h1 + b & whole;
        h2 := h2 + c & whole;
        h3 := h3 + d & whole;
        h4 := h4 + e & whole;
    END LOOP;
    data := substr(int8send(h0), 5) || substr(int8send(h1), 5) || substr(int8send(h2), 5) || substr(int8send(h3), 5);
    data := set_byte(set_byte(data, 6, get_byte(data, 6) & 15 | 80), 8, get_byte(data, 8) & 63 | 128);
    RETURN encode(data, 'hex')::uuid;
END
$$;

DO $$
DECLARE
    place text;
BEGIN
    SELECT n.nspname INTO place
    FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'uuid-ossp';
    IF FOUND THEN
        EXECUTE format(
            'CREATE OR REPLACE FUNCTION syncline.uuid5(namespace uuid, name text) RETURNS uuid'
            ' LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE RETURN %I.uuid_generate_v5(namespace, name)', place
        );
    END IF;
END
$$;

-- Runs a statement over the rows of a stage between two of them, and returns an error instead of raising it:
-- finding one rejected row among thousands then costs one round trip per try, and no statement to roll it
-- back. `by_code`: raised by RAISE of PL/pgSQL.
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

-- One row: the fence, the cluster that the cursors belong to, and changes that no event has announced yet.
CREATE TABLE sync_state (
    only_row          boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    fence             bigint NOT NULL DEFAULT 0,
    holder_run_id     text,
    write_cluster     text,
    behind_since      timestamptz,
    -- What the latest run has committed so far, so that a resumed attempt reports and announces the whole
    -- run: {"run_id", "batches", "tables", "untold"} (syncline.engine.ledger).
    progress          jsonb NOT NULL DEFAULT '{}',
    -- The prefix of the collections that these tables are about; null for a graph that was never promoted. A promotion
    -- swaps it, so that a cycle which was given the other half of the swap stops.
    vector_prefix     text,
    -- The provider whose result a shadow is; null for a live graph.
    shadow_provider   text,
    -- Who reads, whatever the schema is called, and which past of the write-db the cursors are of:
    -- "branch/number/token" of the write-db's sync_position; null as long as none could be written there.
    reader            uuid NOT NULL DEFAULT gen_random_uuid(),
    position          text,
    -- The hash of the map that sync_mapped has in full and that was applied completely; null before the first
    -- cycle.
    map_hash          text
);
INSERT INTO sync_state DEFAULT VALUES;

-- A cycle that finds the graph locked increments it; the holder compares it, when it releases the lock, with
-- the value read before its last look at the write-db. A sequence, so that neither waits for the other's
-- transaction, and nothing has to be reset: the next holder looks anyway.
CREATE SEQUENCE sync_look;

-- The runs that wrote: rows refer to theirs by its fence (sync_run).
CREATE TABLE sync_run (
    fence            bigint PRIMARY KEY,
    run_id           text NOT NULL,
    workflow_id      text NOT NULL,
    attempt          integer NOT NULL,
    provider         text NOT NULL,
    provider_version text,
    taken_at         timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX sync_run_taken_at ON sync_run (taken_at);

-- The cursors: everything before (xid, key) of this table has been committed here. A null key means
-- everything of transactions before xid. Deleted keys of all tables are one separate stream: its row has the
-- table_name 'sync_tombstone' and as key the number (seq) of the last tombstone read.
CREATE TABLE sync_cursor (
    table_name text PRIMARY KEY,
    xid        bigint NOT NULL,
    key        text[]
);

-- How each source was captured when its cursor was last moved. A difference means that capture may have been
-- off.
CREATE TABLE sync_source (
    table_name text PRIMARY KEY,
    hash       text NOT NULL,
    captured   text NOT NULL
);

-- The map that these tables are synced by, table by table, as JSON: what differs from a cycle's map is done
-- again. One that left the map stays listed, because its deletes are missed until it returns. Counts that are
-- made again have got as far as the row `recounted`. `columns`: which columns of both tables are known, and the
-- ones that were added to the source and wait for a decision. `filling`: rows below this transaction are read
-- again by a cursor of their own, since columns were added to the map.
CREATE TABLE sync_mapped (
    table_name text PRIMARY KEY,
    definition jsonb NOT NULL,
    gone       boolean NOT NULL DEFAULT false,
    recount    boolean NOT NULL DEFAULT false,
    recounted  text,
    columns    jsonb,
    filling    bigint
);

-- Tables whose rows may have been deleted without a tombstone: their keys are compared with the write-db's,
-- page by page.
CREATE TABLE sync_comparison (
    table_name text PRIMARY KEY,
    reason     text NOT NULL,
    part       text NOT NULL DEFAULT 'rows',
    after      text[],
    since      timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Parked rows. The image is the staged row, kept as the texts of its columns: JSON's own objects and numbers
-- would change the values. A newer version of the row replaces it.
CREATE TABLE sync_parked_row (
    table_name    text NOT NULL,
    key           text[] NOT NULL,
    image         jsonb NOT NULL CONSTRAINT sync_parked_row_texts CHECK (NOT image ? 'sync_present'),
    waits_for_table text NOT NULL,
    waits_for     uuid NOT NULL,
    waits_for_key text NOT NULL,
    since         timestamptz NOT NULL DEFAULT now(),
    released      boolean NOT NULL DEFAULT false,
    row_id        uuid NOT NULL,
    PRIMARY KEY (table_name, row_id)
);
CREATE INDEX sync_parked_row_waits ON sync_parked_row (waits_for) WHERE NOT released;
CREATE INDEX sync_parked_row_released ON sync_parked_row (table_name) WHERE released;

-- Parked links and optional references: their row has been applied, their other end has not arrived. `name`
-- is the link table, or the referring column of `table_name`. `owner` is a row id; where that is not the id in
-- the target, owner_key is the row's key. `place` is a link's place in its array, where that is kept.
CREATE TABLE sync_parked_reference (
    table_name    text NOT NULL,
    name          text NOT NULL,
    owner         uuid NOT NULL,
    waits_for_table text NOT NULL,
    waits_for     uuid NOT NULL,
    waits_for_key text NOT NULL,
    owner_key     text[],
    since         timestamptz NOT NULL DEFAULT now(),
    place         bigint,
    -- An index that begins with a column of few values, the planner takes for selective as long as it has no
    -- statistics, and reads all of a table's entries to release the one that waits for a row.
    PRIMARY KEY (owner, table_name, name, waits_for)
);
CREATE INDEX sync_parked_reference_waits ON sync_parked_reference (waits_for);

-- The links that arrays name, of link tables in which others have links of their own. `ours`: the engine has
-- made it, so the engine removes it. The ends are ids in the target: uuids, or the hashes of other ids.
CREATE TABLE sync_link (
    name   text NOT NULL,
    owner  uuid NOT NULL,
    member uuid NOT NULL,
    ours   boolean NOT NULL,
    PRIMARY KEY (owner, name, member)
);

-- Rows that the next cycle reads again by key, whatever the cursor: a row that the write-db has is merged,
-- one that it no longer has is removed.
CREATE TABLE sync_requeue (
    table_name text NOT NULL,
    row_id     uuid NOT NULL,
    key        text[] NOT NULL,
    reason     text NOT NULL,
    queued_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (table_name, row_id)
);

-- Dead letters: rows that the graph-db rejected. A newer version of the row, or its delete, removes the dead
-- letter.
CREATE TABLE sync_dead_letter (
    table_name      text NOT NULL,
    row_id          uuid NOT NULL,
    key             text[] NOT NULL,
    version         bigint NOT NULL,          -- sync_xid of the version that was refused
    sqlstate        text NOT NULL,
    message         text NOT NULL,            -- Postgres's own, which may quote values of the row
    constraint_name text,
    fingerprint     text NOT NULL,            -- equal for errors that differ in the row's values alone
    attempts        integer NOT NULL DEFAULT 1,
    first_failed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_failed_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    next_retry_at   timestamptz,              -- null: dead, until somebody asks for a retry or discards it
    run_id          text NOT NULL,
    held_by         uuid,                     -- of the row that has the wanted unique value: once that one changes or
                                              -- leaves, this one is tried again, whatever its own time
    by_code         boolean NOT NULL DEFAULT false, -- code of the database raised it: its text may be a row's
    PRIMARY KEY (table_name, row_id)
);
CREATE INDEX sync_dead_letter_due ON sync_dead_letter (next_retry_at) WHERE next_retry_at IS NOT NULL;
CREATE INDEX sync_dead_letter_fingerprint ON sync_dead_letter (fingerprint);
CREATE INDEX sync_dead_letter_held_by ON sync_dead_letter (table_name, held_by) WHERE held_by IS NOT NULL;

-- Audit of operators' actions: who, when, why, and on which rows.
CREATE TABLE sync_audit (
    number      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    who         text NOT NULL,
    action      text NOT NULL,
    why         text NOT NULL,
    table_name  text,
    key         text[],
    fingerprint text,
    rows        bigint NOT NULL,
    run_id      text,
    starter     text                          -- who started the run, as Temporal has it; `who` is what its input says
);
-- One record of each kind per run, however often its activity is retried.
CREATE UNIQUE INDEX sync_audit_run ON sync_audit (run_id, action, coalesce(table_name, '')) WHERE run_id IS NOT NULL;

-- The vector outbox: points to write to the vector store, in order of their last change. A rejected point is
-- retried separately: it has an error, and a time for the next retry (null: dead, until its row changes).
-- Entries without an error are due now. A collection that cannot be written is delayed as a whole.
CREATE TABLE sync_outbox (
    collection    text NOT NULL,
    point_id      uuid NOT NULL,
    seq           bigserial NOT NULL,
    queued_at     timestamptz NOT NULL DEFAULT now(),
    attempts      integer NOT NULL DEFAULT 0,
    next_retry_at timestamptz,
    error         text,
    PRIMARY KEY (collection, point_id)
);
CREATE INDEX sync_outbox_owed ON sync_outbox (collection, seq) WHERE error IS NULL;
CREATE INDEX sync_outbox_refused ON sync_outbox (collection, next_retry_at) WHERE error IS NOT NULL;

-- Collections that cannot be written, with their next retry.
CREATE TABLE sync_vector_delay (
    collection    text PRIMARY KEY,
    attempts      integer NOT NULL,
    since         timestamptz NOT NULL DEFAULT clock_timestamp(),
    next_retry_at timestamptz NOT NULL,
    error         text NOT NULL
);

-- The state of the vector store: the hash of the embedded text, and the embedding service.
CREATE TABLE sync_vector (
    collection text NOT NULL,
    point_id   uuid NOT NULL,
    text_hash  bytea NOT NULL,
    embedding  text NOT NULL,
    PRIMARY KEY (collection, point_id)
);

-- The embedding service of a collection's vectors; if another one is configured, all points are queued again.
CREATE TABLE sync_vector_embedding (
    collection text PRIMARY KEY,
    embedding  text NOT NULL
);

-- Stored counts of parked, rejected and queued entries, because an idle cycle reports them and must not count
-- a million. One row per counted table and name in it, a table of the map or a collection. `refused` is for
-- the outbox only: rejected points, next to the points to be written. Free space on the page keeps a row's
-- new version next to the old one, without index updates.
CREATE TABLE sync_count (
    counted text NOT NULL,
    name    text NOT NULL,
    refused boolean NOT NULL,
    entries bigint NOT NULL,
    PRIMARY KEY (counted, name, refused)
) WITH (fillfactor = 25);

-- Adds a statement's changes, in its transaction. The schema is that of the table: a promotion renames it,
-- and an operator's manual statement has another search_path. Rows are locked in one order.
CREATE FUNCTION sync_keep_counts() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    name    text := TG_ARGV[0];
    refused text := TG_ARGV[1];
    added   text := format('SELECT %s AS name, %s AS refused, 1 AS entries FROM new_rows', name, refused);
    gone    text := format('SELECT %s AS name, %s AS refused, -1 AS entries FROM old_rows', name, refused);
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        EXECUTE format('UPDATE %I.sync_count SET entries = 0 WHERE counted = $1', TG_TABLE_SCHEMA) USING TG_TABLE_NAME;
        RETURN NULL;
    END IF;
    EXECUTE format(
        'INSERT INTO %I.sync_count AS c (counted, name, refused, entries)'
        ' SELECT $1, name, refused, sum(entries) FROM (%s) AS changed'
        ' GROUP BY name, refused HAVING sum(entries) <> 0 ORDER BY name, refused'
        ' ON CONFLICT (counted, name, refused) DO UPDATE SET entries = c.entries + excluded.entries',
        TG_TABLE_SCHEMA,
        CASE TG_OP WHEN 'INSERT' THEN added WHEN 'DELETE' THEN gone ELSE added || ' UNION ALL ' || gone END
    ) USING TG_TABLE_NAME;
    RETURN NULL;
END
$$;

CREATE TRIGGER sync_count_added AFTER INSERT ON sync_parked_row REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION sync_keep_counts('table_name', 'false');
CREATE TRIGGER sync_count_gone AFTER DELETE ON sync_parked_row REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION sync_keep_counts('table_name', 'false');
CREATE TRIGGER sync_count_emptied AFTER TRUNCATE ON sync_parked_row
    FOR EACH STATEMENT EXECUTE FUNCTION sync_keep_counts();

CREATE TRIGGER sync_count_added AFTER INSERT ON sync_parked_reference REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION sync_keep_counts('table_name', 'false');
CREATE TRIGGER sync_count_gone AFTER DELETE ON sync_parked_reference REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION sync_keep_counts('table_name', 'false');
CREATE TRIGGER sync_count_emptied AFTER TRUNCATE ON sync_parked_reference
    FOR EACH STATEMENT EXECUTE FUNCTION sync_keep_counts();

CREATE TRIGGER sync_count_added AFTER INSERT ON sync_dead_letter REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION sync_keep_counts('table_name', 'false');
CREATE TRIGGER sync_count_gone AFTER DELETE ON sync_dead_letter REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION sync_keep_counts('table_name', 'false');
CREATE TRIGGER sync_count_emptied AFTER TRUNCATE ON sync_dead_letter
    FOR EACH STATEMENT EXECUTE FUNCTION sync_keep_counts();

-- Of these tables only outbox entries change by UPDATE.
CREATE TRIGGER sync_count_added AFTER INSERT ON sync_outbox REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION sync_keep_counts('collection', 'error IS NOT NULL');
CREATE TRIGGER sync_count_changed AFTER UPDATE ON sync_outbox REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION sync_keep_counts('collection', 'error IS NOT NULL');
CREATE TRIGGER sync_count_gone AFTER DELETE ON sync_outbox REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION sync_keep_counts('collection', 'error IS NOT NULL');
CREATE TRIGGER sync_count_emptied AFTER TRUNCATE ON sync_outbox
    FOR EACH STATEMENT EXECUTE FUNCTION sync_keep_counts();

-- The list of rows, for tables whose target does not tell the key of a row, or whose ids do not follow from the
-- key (`id` of a table map: `beside`, `column`, `assigned`). target_id is the id in the target, as text in its form
-- (syncline.maps.key_types); null if that is row_id. A row of the target that is in no list is not the engine's.
-- Free space on the page keeps a row's new version next to the old one, without index updates.
CREATE TABLE sync_row (
    table_name text COLLATE "C" NOT NULL,
    row_id     uuid NOT NULL,
    key        text[] NOT NULL,
    target_id  text COLLATE "C",
    version    bigint,           -- the write-db transaction that changed the row last, if the map wants it kept
    run        bigint,           -- the number of the run that applied that
    PRIMARY KEY (table_name, row_id)
) WITH (fillfactor = 90);
-- The id first: a table's name leads to all its rows.
CREATE UNIQUE INDEX sync_row_target ON sync_row (target_id, table_name) WHERE target_id IS NOT NULL;
