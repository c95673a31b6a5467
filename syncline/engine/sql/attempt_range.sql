(SELECT * FROM @{stage} WHERE ctid >= $1 AND ctid <= $2)
