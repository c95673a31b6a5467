-- What is asked for already is on its way. Table and rows are noted in the audit with the same statement.
WITH asked AS (
    INSERT INTO sync_requeue (table_name, row_id, key, reason)
    SELECT $1, d.row_id, ARRAY(SELECT jsonb_array_elements_text(d.key::jsonb)), 'verify'
    FROM unnest($2::uuid[], $3::text[]) AS d (row_id, key)
    ON CONFLICT DO NOTHING
    RETURNING 1
)
SELECT count(*) FROM asked
