-- The password of administrators: one row, or none.
CREATE TABLE admin_password (
    one BIGINT PRIMARY KEY CHECK (one = 1),
    -- Another one with each change, so that sign-ins with an earlier password are over.
    id TEXT NOT NULL,
    -- By argon2id, in the PHC string format.
    hash TEXT NOT NULL,
    changed_at BIGINT NOT NULL
);

-- The browsers that are signed in. Only hashes: who reads the database can't use them.
CREATE TABLE admin_sign_ins (
    hash TEXT PRIMARY KEY,
    -- The password's id.
    password TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX admin_sign_ins_by_end ON admin_sign_ins (expires_at);
