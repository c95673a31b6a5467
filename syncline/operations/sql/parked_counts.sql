SELECT (SELECT count(*) FROM sync_parked_row WHERE NOT released) AS rows,
       (SELECT count(*) FROM sync_parked_reference) AS references,
       (SELECT count(*) FROM sync_parked_row WHERE released) AS released
