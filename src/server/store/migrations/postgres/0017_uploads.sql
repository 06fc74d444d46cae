-- Uploads that come in parts: those under way, and for a while those that have become sessions.
CREATE TABLE uploads (
    id TEXT COLLATE "C" PRIMARY KEY,
    owner TEXT NOT NULL,
    -- A keyed hash of the address that it came from, if its owner was a newcomer.
    address TEXT,
    -- Bytes: of the whole file, and of those that are here, from the beginning.
    length BIGINT NOT NULL,
    received BIGINT NOT NULL,
    -- As the client has sent it: the file's name and the options.
    metadata TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    -- The session that it has become.
    session_id TEXT
);
CREATE INDEX uploads_by_owner ON uploads (owner);
CREATE INDEX uploads_by_address ON uploads (address) WHERE address IS NOT NULL;
CREATE INDEX uploads_by_expiry ON uploads (expires_at);

-- The parts that lie in the storage of recordings, under these names. A row is added before its part is stored, so that no part
-- is ever left there without a row.
CREATE TABLE upload_parts (
    name TEXT PRIMARY KEY,
    upload_id TEXT NOT NULL REFERENCES uploads (id),
    -- The place of its first byte in the file. None until it is stored.
    first_byte BIGINT,
    bytes BIGINT NOT NULL
);
CREATE INDEX upload_parts_by_upload ON upload_parts (upload_id, first_byte);

-- The SHA-256 of the SHA-256 of each block of 8 MiB of the recording, in hexadecimal.
ALTER TABLE sessions ADD COLUMN recording_hash TEXT;
CREATE INDEX sessions_by_recording ON sessions (owner, recording_hash) WHERE recording_hash IS NOT NULL;
