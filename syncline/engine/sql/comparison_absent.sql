-- Which of some keys the write-db does not have, by their places.
SELECT d.place
FROM (SELECT ARRAY[@{parts}] AS key, u.place FROM unnest(@{parameters}) WITH ORDINALITY AS u (@{parts}, place)) d
WHERE NOT EXISTS (SELECT FROM @{source} t WHERE @{same_key})
