-- Bytes that the recording of a queued session needs on a worker's disk, while there aren't so many.
ALTER TABLE sessions ADD COLUMN needs_room BIGINT;

-- One row, written to find out whether the database can be written.
CREATE TABLE write_probe (
    id BIGINT PRIMARY KEY,
    at BIGINT NOT NULL
);
