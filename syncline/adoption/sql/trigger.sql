CREATE TRIGGER @{name} @{timing} ON @{table} @{rows} EXECUTE FUNCTION @{function}()
