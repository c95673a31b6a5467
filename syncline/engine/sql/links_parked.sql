INSERT INTO sync_parked_reference (table_name, name, owner, waits_for_table, waits_for, waits_for_key)
    SELECT '@{table}', '@{links_name}', d.owner, '@{parent_name}', d.member, d.key
    FROM wanted d
    WHERE NOT EXISTS (SELECT FROM @{parent} p WHERE p.id = d.member)
    ON CONFLICT DO NOTHING
