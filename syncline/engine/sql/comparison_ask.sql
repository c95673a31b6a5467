-- They are asked for by key: what the write-db still does not have then, leaves.
INSERT INTO sync_requeue (table_name, row_id, key, reason)
SELECT $1, d.row_id, ARRAY(SELECT jsonb_array_elements_text(d.key::jsonb)), 'its end was not captured'
FROM unnest($2::uuid[], $3::text[]) AS d (row_id, key)
ON CONFLICT DO NOTHING
