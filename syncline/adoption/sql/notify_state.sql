-- One row. Its writers are hushed for a moment while a run that is about to begin will see what they write.
CREATE TABLE @{state} (
    one          boolean PRIMARY KEY DEFAULT true CHECK (one),
    wanted       boolean NOT NULL DEFAULT true,
    hushed_until timestamptz NOT NULL DEFAULT '-infinity'
);
INSERT INTO @{state} DEFAULT VALUES
