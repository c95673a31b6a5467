-- Rows of the shop: the same ones every time.

INSERT INTO country (name) VALUES ('Portugal'), ('Norway'), ('Ghana');
INSERT INTO store (city, country_id) VALUES ('Porto', 1), ('Bergen', 2), ('Accra', 3);
INSERT INTO staff (store_id, manager_id, full_name, picture)
SELECT 1 + n % 3, CASE WHEN n > 3 THEN 1 + n % 3 END, 'Clerk ' || n, decode(md5(n::text), 'hex')
FROM generate_series(1, 12) n;
INSERT INTO customer (store_id, email, born, created_at, last_seen)
SELECT 1 + n % 3, 'c' || n || '@example.org', date '1960-02-29' + n * 97, timestamp '2025-03-30 02:30' + n * interval '7 h',
       CASE WHEN n % 4 > 0 THEN timestamptz '2026-01-01 00:00+00' + n * interval '53 min' END
FROM generate_series(1, 60) n;
INSERT INTO category (name) VALUES ('Drama'), ('Comedy'), ('Nature'), ('Music');
INSERT INTO film (title, description, rating, rental_rate, special_features, first_shown)
SELECT 'Film ' || n, CASE WHEN n % 5 > 0 THEN 'About ' || n || ' of "them"' END, (enum_range(NULL::rating))[1 + n % 3],
       0.99 + n % 7, CASE n % 3 WHEN 0 THEN '{}' ELSE ARRAY['Trailer', 'Cut "' || n || '"'] END, date '1999-12-31' + n
FROM generate_series(1, 40) n;
INSERT INTO film_category SELECT n, 1 + (n * k) % 4, date '2026-01-01' + n FROM generate_series(1, 40) n, generate_series(1, 2) k
ON CONFLICT DO NOTHING;
INSERT INTO "order" (customer_id, placed_at)
SELECT 1 + n % 60, timestamptz '2026-01-02 10:00+00' + n * interval '5 h' FROM generate_series(1, 90) n;
INSERT INTO "OrderItem" SELECT o, l, 1 + (o * l) % 40, 1.5 * l, l FROM generate_series(1, 90) o, generate_series(1, 3) l;
INSERT INTO item_return (order_id, "lineNo", reason)
SELECT n, 1 + n % 3, 'scratched' FROM generate_series(1, 90, 9) n;
INSERT INTO payment (customer_id, staff_id, amount, paid_at)
SELECT 1 + n % 60, CASE WHEN n % 6 > 0 THEN 1 + n % 12 END, 2.5 * n, timestamp '2026-01-01 08:00' + n * interval '9 h'
FROM generate_series(1, 150) n;
