-- Whether the channels of the recording are mixed ('mix') or heard apart ('split').
ALTER TABLE sessions ADD COLUMN channel_choice TEXT NOT NULL DEFAULT 'mix';
-- The audio track that its owner has chosen: its number from 1, or 'mix' for all of them.
ALTER TABLE sessions ADD COLUMN track TEXT;
-- The number of audio tracks of the recording; 0 if it isn't known.
ALTER TABLE sessions ADD COLUMN tracks INTEGER NOT NULL DEFAULT 0;
-- The index of the first segment. Those before belonged to a transcript that was replaced, and are gone.
ALTER TABLE sessions ADD COLUMN first_segment INTEGER NOT NULL DEFAULT 0;
-- The number of the speaker, from 1, where speakers were transcribed apart.
ALTER TABLE segments ADD COLUMN speaker INTEGER;
