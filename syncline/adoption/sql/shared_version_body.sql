-- What stamped the rows of all schemas in earlier releases.
BEGIN
    NEW.sync_xid := pg_current_xact_id();
    RETURN NEW;
END
