SELECT sync_xid, seq FROM @{stage} ORDER BY sync_xid DESC, seq DESC LIMIT 1
