-- The cluster of nodes that share this database; one row.
CREATE TABLE cluster (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    id TEXT NOT NULL,
    -- Fingerprints of the key that signs now, and of the one before.
    cookie_key TEXT,
    cookie_key_before TEXT,
    -- Where the recordings are, for people. The place itself has a marker with the id.
    recordings TEXT
);

-- The nodes that are running, or were until lately.
CREATE TABLE nodes (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    -- 'serve' or 'worker'.
    role TEXT NOT NULL,
    version TEXT NOT NULL,
    -- How many sessions it transcribes at once, and how many it does now.
    workers INTEGER NOT NULL,
    running INTEGER NOT NULL,
    -- JSON arrays: its engines with their models, and the fingerprints of its keys.
    engines TEXT NOT NULL,
    cookie_keys TEXT NOT NULL,
    -- By how many milliseconds its clock is ahead of the database's.
    clock_ahead_ms INTEGER,
    -- Why it isn't ready or claims nothing, for operators.
    problem TEXT,
    started_at INTEGER NOT NULL,
    heartbeat_at INTEGER NOT NULL
);
