// Test speech, made with flite when it is first needed, and the word error rate of its transcripts.
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, renameSync } from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import path from 'node:path';

/** The text of the clip: 26 s, with words that a small model knows. */
export const TEXT =
  'We left the old house early in the morning. The road went along the river and then up into the hills. ' +
  'There was no one else on the road that day. By noon the sun was high and we stopped under a tall tree to eat some bread. ' +
  'After that the weather began to change. A cold wind came down from the mountains, and before long it was raining. ' +
  'We found a small farm where an old man gave us a room for the night.';

// As in scripts/env.
const TOOLS = process.env.HARK_TOOLS ?? path.join(process.env.CARGO_HOME ?? path.join(homedir(), '.cargo'), 'hark');

/** Settings of a server that transcribes English with Whisper's smallest model. */
export const WHISPER = {
  HARK_ENGINE: 'whisper',
  HARK_WHISPER_MODEL: path.join(TOOLS, 'models', 'ggml-tiny.en.bin'),
};

/** The share of the clip's words that Whisper's smallest model may get wrong. */
export const WHISPER_ERRORS = 0.05;

const FOLDER = path.join(tmpdir(), 'hark-speech');

/** The clip as a file. It is written under a temporary name, so that two workers can make it at the same time. */
export function clip(format: 'wav' | 'mp3' | 'wma'): string {
  const file = path.join(FOLDER, `road.${format}`);
  if (existsSync(file)) return file;
  mkdirSync(FOLDER, { recursive: true });
  const part = path.join(FOLDER, `${process.pid}.part.${format}`);
  if (format === 'wav') execFileSync('flite', ['-voice', 'rms', '-t', TEXT, '-o', part]);
  else execFileSync('ffmpeg', ['-v', 'error', '-y', '-i', clip('wav'), '-b:a', '64k', part]);
  renameSync(part, file);
  return file;
}

function words(text: string): string[] {
  return text.toLowerCase().replace(/[^a-z0-9' ]+/g, ' ').split(' ').filter(Boolean);
}

/** The word error rate: the words changed, missing or added, divided by the words of `spoken`. */
export function wordErrorRate(spoken: string, transcript: string): number {
  const [a, b] = [words(spoken), words(transcript)];
  let row = b.map((_, j) => j + 1);
  row.unshift(0);
  for (const [i, word] of a.entries()) {
    const next = [i + 1];
    for (const [j, other] of b.entries()) {
      next.push(Math.min(row[j]! + (word === other ? 0 : 1), row[j + 1]! + 1, next[j]! + 1));
    }
    row = next;
  }
  return row[b.length]! / a.length;
}
