-- Keys that were asked for again and that the write-db does not have.
INSERT INTO pg_temp.sync_gone (table_name, row_id, key)
SELECT '@{table}', asked.row_id, asked.key
FROM unnest($1::uuid[], $2::text[]) AS given (row_id, key_json),
     LATERAL (SELECT given.row_id, ARRAY(SELECT jsonb_array_elements_text(given.key_json::jsonb)) AS key) AS asked
WHERE NOT EXISTS (SELECT FROM @{stage} s WHERE @{row_id} = asked.row_id)
ON CONFLICT DO NOTHING
