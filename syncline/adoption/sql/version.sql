-- Stamps every row version with the id of the transaction that wrote it. A timestamp would lie: it is taken
-- when a transaction starts, shared by many rows, and skewed between writers. A transaction id together with
-- the snapshot's xmin says exactly which rows can no longer change behind a reader's back. One for each schema: whoever
-- owned one that all share could have it run in every other owner's writes.
CREATE OR REPLACE FUNCTION @{function}() RETURNS trigger
LANGUAGE plpgsql AS $$@{body}$$
