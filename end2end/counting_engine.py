# A slow speech engine for tests. Its first argument is the time in seconds that it takes for each second of audio, for which
# it sends a segment. With a second argument it hangs after two segments, unless a file of that name exists: it makes that
# file when it hangs, so it hangs only once.
import json
import pathlib
import sys
import time

pause = float(sys.argv[1])
hung = pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else None


def say(**line):
    print(json.dumps(line), flush=True)


say(type="ready", protocol=1, model="counting")
heard = 0
while True:
    data = sys.stdin.buffer.read(32000)
    if not data:
        break
    time.sleep(pause)
    start, heard = heard, heard + len(data) / 32000
    say(type="segment", start=start, end=heard, text="line %d" % round(start))
    say(type="progress", processed=heard)
    if hung and not hung.exists() and heard >= 2:
        hung.touch()
        time.sleep(600)
say(type="done")
