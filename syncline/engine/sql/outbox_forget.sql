DELETE FROM sync_vector v USING unnest($1::uuid[]) AS d (point_id)
WHERE v.collection = '@{collection}' AND v.point_id = d.point_id
