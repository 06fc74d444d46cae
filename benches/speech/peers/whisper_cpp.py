"""whisper.cpp by its Python wheel: one pass over the whole recording. Prints each line as it is found.

usage: whisper_cpp.py MODEL THREADS LANGUAGE RECORDING"""

import sys

from pywhispercpp.model import Model

model, threads, language, recording = sys.argv[1:]
whisper = Model(model, n_threads=int(threads), redirect_whispercpp_logs_to=None, language=language,
                print_realtime=False, print_progress=False)
whisper.transcribe(recording, new_segment_callback=lambda segment: print(segment.text, flush=True))
