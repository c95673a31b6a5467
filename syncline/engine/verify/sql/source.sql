-- OFFSET 0 keeps a hash from being computed once for each place that its value is used in.
(SELECT s.*, @{row_id} AS sync_row_id
 FROM (
    SELECT @{columns}, (@{present}) IS TRUE AS sync_present, @{beyond} AS sync_beyond
    FROM @{source} WHERE @{wanted} OFFSET 0
 ) s OFFSET 0) s
