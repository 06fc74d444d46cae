"""faster-whisper with 8-bit weights, one beam, and its voice detector. Prints each line as it is found.

usage: faster_whisper.py FOLDER THREADS LANGUAGE RECORDING"""

import sys

sys.path.pop(0)  # this file has the name of the package
from faster_whisper import WhisperModel  # noqa: E402

folder, threads, language, recording = sys.argv[1:]
model = WhisperModel(folder, device="cpu", compute_type="int8", cpu_threads=int(threads))
segments, _ = model.transcribe(recording, language=language, beam_size=1, vad_filter=True)
for segment in segments:
    print(segment.text, flush=True)
