-- The number of each session in the index of the texts, in the order in which sessions were added. No number is used again.
CREATE TABLE search_sessions (
    num INTEGER PRIMARY KEY AUTOINCREMENT,
    session_id TEXT NOT NULL UNIQUE
);

-- The words of each segment, and before them one word that stands for its owner and begins with a character for private use,
-- which no query has. A row's id is the session's number shifted by 24
-- bits, plus 16777215 minus the segment's index: from the highest on, these are the newest session's segments in their order.
CREATE VIRTUAL TABLE segment_search USING fts5 (
    text,
    content = '',
    contentless_delete = 1,
    tokenize = "unicode61 remove_diacritics 0 categories 'L* N* Co Mn Mc'"
);

-- Triggers, so that nodes of earlier releases keep the index as well.
CREATE TRIGGER search_session_added AFTER INSERT ON sessions
BEGIN
    INSERT INTO search_sessions (session_id) VALUES (new.id);
END;

-- After the triggers of its segments, which read its number.
CREATE TRIGGER search_session_deleted AFTER DELETE ON sessions
BEGIN
    DELETE FROM search_sessions WHERE session_id = old.id;
END;

CREATE TRIGGER search_segment_added AFTER INSERT ON segments WHEN new.idx < 16777216
BEGIN
    INSERT INTO segment_search (rowid, text)
    SELECT (m.num << 24) | (16777215 - new.idx), char(57344) || s.owner || ' ' || new.text
    FROM search_sessions m JOIN sessions s ON s.id = m.session_id WHERE m.session_id = new.session_id;
END;

CREATE TRIGGER search_segment_deleted AFTER DELETE ON segments
BEGIN
    DELETE FROM segment_search WHERE rowid = (
        SELECT (num << 24) | (16777215 - old.idx) FROM search_sessions WHERE session_id = old.session_id);
END;

INSERT INTO search_sessions (session_id) SELECT id FROM sessions ORDER BY id;
INSERT INTO segment_search (rowid, text)
SELECT (m.num << 24) | (16777215 - g.idx), char(57344) || s.owner || ' ' || g.text
FROM search_sessions m JOIN sessions s ON s.id = m.session_id JOIN segments g ON g.session_id = m.session_id
WHERE g.idx < 16777216 ORDER BY m.num, g.idx DESC;
