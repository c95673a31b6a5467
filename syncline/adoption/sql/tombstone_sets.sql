BEGIN
    IF TG_OP = 'DELETE' THEN
        INSERT INTO @{tombstones} (source_table, key) SELECT @{source}, @{row_key} FROM sync_old_rows r;
    ELSIF TG_OP = 'UPDATE' THEN
        INSERT INTO @{tombstones} (source_table, key) VALUES (@{source}, @{old_key});
    ELSE
        INSERT INTO @{tombstones} (source_table, key) SELECT @{source}, @{row_key} FROM @{table} r;
    END IF;
    RETURN NULL;
END
