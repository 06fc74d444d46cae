-- The title in the form in which it is searched, written by Hark; empty until it has been.
ALTER TABLE sessions ADD COLUMN title_folded TEXT NOT NULL DEFAULT '';
-- The position in the queue that watchers were told last. The true one is counted.
ALTER TABLE sessions ADD COLUMN told_position BIGINT;
