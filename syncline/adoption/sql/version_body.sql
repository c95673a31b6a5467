BEGIN
    NEW.sync_xid := pg_current_xact_id();
    RETURN NEW;
END
