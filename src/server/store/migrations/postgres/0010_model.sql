-- Why a queued session waits for its engine's model, for people, while that isn't there.
ALTER TABLE sessions ADD COLUMN needs_model TEXT;
