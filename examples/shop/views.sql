-- Views of the graph-db that read the synced tables.

CREATE VIEW order_total AS
SELECT o.order_id, o.placed_at, sum(i."unitPrice" * i.quantity) AS total
FROM "order" o JOIN "OrderItem" i USING (order_id) GROUP BY o.order_id;

CREATE MATERIALIZED VIEW taken_by_store AS
SELECT s.city, sum(p.amount) AS taken
FROM payment p JOIN customer USING (customer_id) JOIN store s USING (store_id) GROUP BY s.city;
