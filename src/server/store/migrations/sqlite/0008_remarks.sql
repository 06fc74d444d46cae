-- What a reader should know of the recording and its transcript, as a JSON array; empty if there is nothing.
ALTER TABLE sessions ADD COLUMN remarks TEXT NOT NULL DEFAULT '';
-- The language that the engine has found (BCP 47), and how sure it is (0 to 1).
ALTER TABLE sessions ADD COLUMN detected_language TEXT;
ALTER TABLE sessions ADD COLUMN detected_probability REAL;
-- Names and terms that help the engine, with commas between.
ALTER TABLE sessions ADD COLUMN vocabulary TEXT;
