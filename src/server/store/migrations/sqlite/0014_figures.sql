-- What each run of a node counted for the dashboard, in an hour (3600 seconds), or in five minutes of the last hours (300).
CREATE TABLE figures (
    starts_at INTEGER NOT NULL,
    seconds INTEGER NOT NULL,
    -- The run of the node, which is the only one that writes the row.
    node TEXT NOT NULL,
    -- JSON.
    counters TEXT NOT NULL,
    PRIMARY KEY (seconds, starts_at, node)
);
-- What the node does now, as JSON; null from a node of an older version.
ALTER TABLE nodes ADD COLUMN load TEXT;
