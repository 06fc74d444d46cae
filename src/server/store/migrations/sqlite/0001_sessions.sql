-- Times are milliseconds since the Unix epoch, durations seconds, ids UUID version 7 as text (they sort by time).
CREATE TABLE sessions (
    id TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    title TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    queued_at INTEGER NOT NULL,
    started_at INTEGER,
    finished_at INTEGER,
    updated_at INTEGER NOT NULL,
    engine TEXT NOT NULL,
    model TEXT,
    language TEXT,
    file_name TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    format TEXT NOT NULL,
    codec TEXT NOT NULL,
    sample_rate INTEGER NOT NULL,
    channels INTEGER NOT NULL,
    version INTEGER NOT NULL,
    status TEXT NOT NULL,
    stage TEXT,
    progress REAL,
    message TEXT NOT NULL,
    duration_processed REAL NOT NULL,
    duration_total REAL,
    estimated_completion INTEGER,
    processing_speed REAL,
    segments INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    -- Attempts that a crash or a lost lease ended. A person's retry sets it back.
    crashes INTEGER NOT NULL,
    error_code TEXT,
    error_message TEXT,
    worker TEXT,
    lease_until INTEGER
);
CREATE INDEX sessions_by_owner ON sessions (owner, id);
CREATE INDEX sessions_by_status ON sessions (status, queued_at, id);

CREATE TABLE segments (
    session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    idx INTEGER NOT NULL,
    start_s REAL NOT NULL,
    end_s REAL NOT NULL,
    text TEXT NOT NULL,
    confidence REAL,
    -- A JSON array of words.
    words TEXT NOT NULL,
    PRIMARY KEY (session_id, idx)
) WITHOUT ROWID;

-- The waveform of the recording, one byte a bin, known once it has been decoded.
CREATE TABLE waveforms (
    session_id TEXT PRIMARY KEY REFERENCES sessions (id) ON DELETE CASCADE,
    peaks BLOB NOT NULL
);
