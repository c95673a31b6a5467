-- Who listens, until when that is sure, and below which transaction id nothing is left to be heard. Read by the
-- notifying triggers of every graph of the database, whoever has adopted it: else its writers' statements would fail.
CREATE SCHEMA IF NOT EXISTS syncline;
GRANT USAGE ON SCHEMA syncline TO PUBLIC;
CREATE TABLE IF NOT EXISTS syncline.listener (
    name        text PRIMARY KEY,
    until       timestamptz NOT NULL,
    heard_below xid8 NOT NULL
);
GRANT SELECT ON syncline.listener TO PUBLIC
