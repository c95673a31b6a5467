BEGIN
    NEW.sync_xid := pg_catalog.pg_current_xact_id();
    RETURN NEW;
END
