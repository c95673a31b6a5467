('x' || encode(substr(sha256(@{bytes}), 1, 8), 'hex'))::bit(64)::bigint
