SELECT has_table_privilege('@{deletes}', 'DELETE') AND NOT pg_is_in_recovery() AS may_clear,
       coalesce(has_table_privilege(to_regclass($1), 'SELECT') AND has_table_privilege(to_regclass($1), 'UPDATE'), false) AS may_note
