UPDATE sync_audit SET rows = rows + $2 WHERE number = $1
