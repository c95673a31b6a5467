DELETE FROM audit_trail WHERE began_at < now() - make_interval(days => $1)
