-- What only the true past of this database has: the engine writes a new token for each stretch that it reads, before it
-- moves a cursor over it. A past without the token that the graph-db remembers is another one.
CREATE TABLE @{positions} (
    reader        uuid PRIMARY KEY,
    branch        uuid NOT NULL,
    number        bigint NOT NULL,
    tokens        uuid[] NOT NULL,
    cleared_below bigint NOT NULL DEFAULT 0,
    written_at    timestamptz NOT NULL DEFAULT now()
)
