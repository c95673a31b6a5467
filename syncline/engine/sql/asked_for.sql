-- Which of the tables $1 have rows to land whose parent has come, and which have rows that are asked for by key.
SELECT @{released} AS released,
       ARRAY(
           SELECT t.name FROM unnest($1::text[]) AS t (name)
           WHERE (
               SELECT r.row_id FROM sync_requeue r WHERE r.table_name = t.name ORDER BY r.table_name, r.row_id LIMIT 1
           ) IS NOT NULL
       ) AS requeued
