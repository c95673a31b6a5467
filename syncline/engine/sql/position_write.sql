-- A token that no other past has. Numbers go on as long as this is the past that the reader knows; else a branch begins.
INSERT INTO @{positions} AS p (reader, branch, number, tokens)
VALUES ($1::text::uuid, $2::text::uuid, 1, ARRAY[$3::text::uuid])
ON CONFLICT (reader) DO UPDATE SET
    branch = CASE WHEN $4 THEN excluded.branch ELSE p.branch END,
    number = p.number + 1,
    tokens = CASE WHEN $4 THEN excluded.tokens ELSE (excluded.tokens || p.tokens)[1:100] END,
    written_at = now()
RETURNING branch::text, number
