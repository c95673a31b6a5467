BEGIN
    IF TG_OP <> 'TRUNCATE' THEN
        INSERT INTO @{tombstones} (source_table, key) VALUES (@{source}, @{old_key});
    ELSE
        EXECUTE 'INSERT INTO @{tombstones_text} (source_table, key) SELECT $1, @{row_key_text} FROM '
            || TG_RELID::regclass || ' r' USING @{source};
    END IF;
    RETURN NULL;
END
