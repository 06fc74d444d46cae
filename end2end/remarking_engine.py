"""An engine for tests: finds German, says one line with an unsure word and a remark, and ends so many seconds later."""
import json
import os
import sys
import time


def say(**line):
    print(json.dumps(line), flush=True)


sys.stdin.buffer.read()
say(type="ready", protocol=1, model="remarking")
say(type="language", language="de", probability=0.75)
terms = os.environ.get("HARK_VOCABULARY", "they")
words = [{"text": word, "start": 0, "end": 1, "confidence": 0.9} for word in [*terms.split(), "knew", "it"]]
words[-2]["confidence"] = 0.2
say(type="segment", start=0, end=2, text=f"{terms} knew it", words=words)
say(type="remark", code="left_out", message="0:10 to 0:20 could not be transcribed: the server was <b>busy</b>.")
say(type="progress", processed=2.5)
time.sleep(float(sys.argv[1]))
say(type="done")
