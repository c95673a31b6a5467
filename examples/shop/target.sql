-- What readers of the graph-db have already: a full-text index kept by Postgres, ids of its own making, partitions.

CREATE TABLE film (
    film_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    title text NOT NULL,
    description text,
    rating text,
    rental_rate numeric,
    special_features text[],
    first_shown date,
    search tsvector GENERATED ALWAYS AS (to_tsvector('simple', title || ' ' || coalesce(description, ''))) STORED
);
CREATE INDEX ON film USING gin (search);

CREATE TABLE payment (
    payment_id bigint,
    customer_id int NOT NULL,
    staff_id int,
    amount numeric NOT NULL,
    paid_at timestamp,
    PRIMARY KEY (payment_id, paid_at)
) PARTITION BY RANGE (paid_at);
CREATE TABLE payment_2026_01 PARTITION OF payment FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
CREATE TABLE payment_rest PARTITION OF payment DEFAULT;
