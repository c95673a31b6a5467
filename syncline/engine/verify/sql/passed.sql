-- OFFSET 0 keeps each level to itself: captured rows alone are tried for anything, and no hash is computed once for
-- each place that its value is used in.
(SELECT s.*, @{row_id} AS sync_row_id
 FROM (
    SELECT @{columns} FROM (SELECT * FROM @{source} WHERE @{captured} OFFSET 0) AS @{name}
    WHERE (@{present}) IS TRUE OFFSET 0
 ) s OFFSET 0) s
