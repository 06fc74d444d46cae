-- When each session entered which stage; NULL: it waits, or has ended. Kept by a trigger, so no change is left out.
CREATE TABLE stages (
    seq INTEGER PRIMARY KEY,
    session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    at INTEGER NOT NULL,
    stage TEXT
);
CREATE INDEX stages_by_session ON stages (session_id);

CREATE TRIGGER sessions_stage AFTER UPDATE OF status, stage ON sessions
WHEN (CASE WHEN new.status = 'processing' THEN new.stage END)
    IS NOT (CASE WHEN old.status = 'processing' THEN old.stage END)
BEGIN
    INSERT INTO stages (session_id, at, stage)
    VALUES (new.id, new.updated_at, CASE WHEN new.status = 'processing' THEN new.stage END);
END;
