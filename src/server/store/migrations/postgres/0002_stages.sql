-- When each session entered which stage; NULL: it waits, or has ended. Kept by a trigger, so no change is left out.
CREATE TABLE stages (
    seq BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    session_id TEXT COLLATE "C" NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    at BIGINT NOT NULL,
    stage TEXT
);
CREATE INDEX stages_by_session ON stages (session_id);

CREATE FUNCTION log_stage() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO stages (session_id, at, stage)
    VALUES (new.id, new.updated_at, CASE WHEN new.status = 'processing' THEN new.stage END);
    RETURN NULL;
END
$$;

CREATE TRIGGER sessions_stage AFTER UPDATE OF status, stage ON sessions FOR EACH ROW
WHEN ((CASE WHEN new.status = 'processing' THEN new.stage END)
    IS DISTINCT FROM (CASE WHEN old.status = 'processing' THEN old.stage END))
EXECUTE FUNCTION log_stage();
