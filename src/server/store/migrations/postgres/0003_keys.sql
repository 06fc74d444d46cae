-- What all nodes of a database must share.
CREATE TABLE keys (
    name TEXT PRIMARY KEY,
    value BYTEA NOT NULL
);
