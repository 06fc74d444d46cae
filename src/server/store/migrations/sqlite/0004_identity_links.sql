-- Ways into an owner's sessions from another browser. Only hashes: who reads the database can't use them.
CREATE TABLE identity_links (
    hash TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    -- A recovery key has none; a link works once and until then.
    expires_at INTEGER
);
CREATE INDEX identity_links_of_owner ON identity_links (owner);
CREATE INDEX identity_links_by_end ON identity_links (expires_at);
