BEGIN
    IF pg_current_xact_id_if_assigned() IS NOT NULL
        AND current_setting('max_prepared_transactions') = '0'
        AND EXISTS (
            SELECT FROM @{state} s
            WHERE s.wanted AND (
                current_setting('transaction_isolation') <> 'read committed'
                OR EXISTS (SELECT FROM syncline.listener l WHERE l.until > clock_timestamp())
                    AND NOT (
                        s.hushed_until > clock_timestamp()
                        AND s.hushed_until < clock_timestamp() + interval '5 seconds'
                    )
            )
        )
    THEN
        PERFORM pg_notify('@{channel}', pg_current_xact_id() || ' @{schema}');
    END IF;
    RETURN NULL;
END
