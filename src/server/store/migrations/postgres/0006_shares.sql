-- The queue is taken in turns, one session of each owner in each: what is queued has the turn in which it comes.
ALTER TABLE sessions ADD COLUMN turn BIGINT NOT NULL DEFAULT 0;
-- A keyed hash of the address that a newcomer's session came from. Gone when the session ends.
ALTER TABLE sessions ADD COLUMN address TEXT;
DROP INDEX sessions_by_status;
CREATE INDEX sessions_by_turn ON sessions (status, turn, queued_at, id);
CREATE INDEX sessions_by_end ON sessions (finished_at, id) WHERE finished_at IS NOT NULL;

-- In which turn an owner, or an address of newcomers, was served last. The highest is the turn that the queue has
-- reached; whoever was served in an earlier one may join that, so earlier ones needn't be kept. Not in `sessions`: what
-- was served counts also when it has been deleted.
CREATE TABLE turns (
    who TEXT PRIMARY KEY,
    turn BIGINT NOT NULL
);
CREATE FUNCTION note_turn() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO turns (who, turn) VALUES (new.owner, new.turn)
    ON CONFLICT (who) DO UPDATE SET turn = GREATEST(turns.turn, excluded.turn);
    IF new.address IS NOT NULL THEN
        INSERT INTO turns (who, turn) VALUES (new.address, new.turn)
        ON CONFLICT (who) DO UPDATE SET turn = GREATEST(turns.turn, excluded.turn);
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER sessions_turn AFTER UPDATE OF status ON sessions FOR EACH ROW
WHEN (old.status = 'queued' AND new.status = 'processing' AND new.engine <> 'external')
EXECUTE FUNCTION note_turn();

-- What one node at a time does for all, and which one until when.
CREATE TABLE chores (
    name TEXT PRIMARY KEY,
    node TEXT NOT NULL,
    until BIGINT NOT NULL
);
