-- The same on what the owner makes later.
ALTER DEFAULT PRIVILEGES FOR ROLE @{owner} IN SCHEMA @{schema}
    GRANT @{privileges} ON @{what} TO @{worker};
