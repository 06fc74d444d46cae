-- Times are milliseconds since the Unix epoch, durations seconds, ids UUID version 7 as text (they sort by time).
CREATE TABLE sessions (
    id TEXT COLLATE "C" PRIMARY KEY,
    owner TEXT NOT NULL,
    title TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    queued_at BIGINT NOT NULL,
    started_at BIGINT,
    finished_at BIGINT,
    updated_at BIGINT NOT NULL,
    engine TEXT NOT NULL,
    model TEXT,
    language TEXT,
    file_name TEXT NOT NULL,
    bytes BIGINT NOT NULL,
    format TEXT NOT NULL,
    codec TEXT NOT NULL,
    sample_rate BIGINT NOT NULL,
    channels BIGINT NOT NULL,
    version BIGINT NOT NULL,
    status TEXT NOT NULL,
    stage TEXT,
    progress DOUBLE PRECISION,
    message TEXT NOT NULL,
    duration_processed DOUBLE PRECISION NOT NULL,
    duration_total DOUBLE PRECISION,
    estimated_completion BIGINT,
    processing_speed DOUBLE PRECISION,
    segments BIGINT NOT NULL,
    attempt BIGINT NOT NULL,
    -- Attempts that a crash or a lost lease ended. A person's retry sets it back.
    crashes BIGINT NOT NULL,
    error_code TEXT,
    error_message TEXT,
    worker TEXT,
    lease_until BIGINT
);
CREATE INDEX sessions_by_owner ON sessions (owner, id);
CREATE INDEX sessions_by_status ON sessions (status, queued_at, id);

CREATE TABLE segments (
    session_id TEXT COLLATE "C" NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    idx BIGINT NOT NULL,
    start_s DOUBLE PRECISION NOT NULL,
    end_s DOUBLE PRECISION NOT NULL,
    text TEXT NOT NULL,
    confidence DOUBLE PRECISION,
    -- A JSON array of words.
    words TEXT NOT NULL,
    PRIMARY KEY (session_id, idx)
);

-- The waveform of the recording, one byte a bin, known once it has been decoded.
CREATE TABLE waveforms (
    session_id TEXT COLLATE "C" PRIMARY KEY REFERENCES sessions (id) ON DELETE CASCADE,
    peaks BYTEA NOT NULL
);
