-- How much waits, was refused and is owed is kept, because an idle cycle tells it and must not count a million entries.
-- Runs with search_path set to the graph's schema.

-- One row for each table of the books that is counted and each name in it, a table of the map or a collection.
-- `refused` is for the outbox alone: points that the vector store refused, and points that it has yet to take.
-- Room on the page is left so that a new version of a row lies beside the old one, and no index has to hear of it.
CREATE TABLE sync_count (
    counted text NOT NULL,
    name    text NOT NULL,
    refused boolean NOT NULL,
    entries bigint NOT NULL,
    PRIMARY KEY (counted, name, refused)
) WITH (fillfactor = 25);

-- Adds what a statement has changed, in its transaction. The schema is that of the table and no other: a promotion
-- renames it, and whoever writes by hand has another search_path. Rows are locked in one order.
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

-- Of these tables only an entry of the outbox becomes another by an UPDATE.
CREATE TRIGGER sync_count_added AFTER INSERT ON sync_outbox REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION sync_keep_counts('collection', 'error IS NOT NULL');
CREATE TRIGGER sync_count_changed AFTER UPDATE ON sync_outbox REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION sync_keep_counts('collection', 'error IS NOT NULL');
CREATE TRIGGER sync_count_gone AFTER DELETE ON sync_outbox REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION sync_keep_counts('collection', 'error IS NOT NULL');
CREATE TRIGGER sync_count_emptied AFTER TRUNCATE ON sync_outbox
    FOR EACH STATEMENT EXECUTE FUNCTION sync_keep_counts();

-- The triggers keep writers out until this transaction ends, so that nothing slips in between.
INSERT INTO sync_count (counted, name, refused, entries)
SELECT 'sync_parked_row', table_name, false, count(*) FROM sync_parked_row GROUP BY table_name
UNION ALL
SELECT 'sync_parked_reference', table_name, false, count(*) FROM sync_parked_reference GROUP BY table_name
UNION ALL
SELECT 'sync_dead_letter', table_name, false, count(*) FROM sync_dead_letter GROUP BY table_name
UNION ALL
SELECT 'sync_outbox', collection, error IS NOT NULL, count(*) FROM sync_outbox GROUP BY collection, error IS NOT NULL;

-- An index that begins with a column of few values, the planner takes for selective as long as it has no statistics,
-- and reads all of a table's entries to release the one that waits for a row.
ALTER TABLE sync_parked_reference DROP CONSTRAINT sync_parked_reference_pkey;
ALTER TABLE sync_parked_reference ADD PRIMARY KEY (owner, table_name, name, waits_for);
