-- The alerts that have begun and aren't over.
CREATE TABLE alerts (
    name TEXT NOT NULL,
    -- The name of the node that it concerns; empty if it concerns all.
    node TEXT NOT NULL,
    -- Which of several, such as a folder; empty if there is only one.
    detail TEXT NOT NULL,
    -- The id of the node that looks after it, and when it did so last.
    owner TEXT NOT NULL,
    since BIGINT NOT NULL,
    seen_at BIGINT NOT NULL,
    PRIMARY KEY (name, node, detail)
);

-- Messages about alerts that wait to be sent, each on one channel.
CREATE TABLE alert_messages (
    id TEXT COLLATE "C" PRIMARY KEY,
    channel TEXT NOT NULL,
    -- JSON.
    body TEXT NOT NULL,
    failures BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    next_at BIGINT NOT NULL
);
CREATE INDEX alert_messages_by_channel ON alert_messages (channel, id);

-- What each node has counted for the rules of alerts, as JSON.
CREATE TABLE alert_figures (
    node TEXT PRIMARY KEY,
    figures TEXT NOT NULL,
    at BIGINT NOT NULL
);

-- The errors that sessions have failed with.
CREATE TABLE alert_errors (
    code TEXT PRIMARY KEY,
    first_at BIGINT NOT NULL
);
INSERT INTO alert_errors (code, first_at)
SELECT error_code, MIN(updated_at) FROM sessions WHERE error_code IS NOT NULL GROUP BY error_code;
