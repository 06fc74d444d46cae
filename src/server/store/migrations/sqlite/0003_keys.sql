-- What all nodes of a database must share. An SQLite database has one node, which keeps its key in a file.
CREATE TABLE keys (
    name TEXT PRIMARY KEY,
    value BLOB NOT NULL
);
