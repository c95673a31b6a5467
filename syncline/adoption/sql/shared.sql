-- Stamps every row version with the id of the transaction that wrote it. A timestamp would lie: it is taken
-- when a transaction starts, shared by many rows, and skewed between writers. A transaction id together with
-- the snapshot's xmin says exactly which rows can no longer change behind a reader's back.
CREATE SCHEMA IF NOT EXISTS syncline;
CREATE OR REPLACE FUNCTION syncline.capture_version() RETURNS trigger
LANGUAGE plpgsql AS $$@{body}$$
