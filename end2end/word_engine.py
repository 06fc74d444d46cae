# A speech engine for tests that says where each word begins: lines of four words, a word for each second, or for as many
# seconds as its first argument says. With a second argument, two of three lines have so many words more, in the same time.
import json
import sys


def say(**line):
    print(json.dumps(line), flush=True)


say(type="ready", protocol=1, model="words")
samples = 0
while data := sys.stdin.buffer.read(65536):
    samples += len(data) // 2
word = float(sys.argv[1]) if len(sys.argv) > 1 else 1
more = int(sys.argv[2]) if len(sys.argv) > 2 else 0
for line in range(int(samples / 16000 / word / 4 + 0.5)):
    names = ["line%d" % line, "second", "third", "fourth"] + ["more"] * (line % 3 * more)
    start = line * 4 * word
    step = 4 * word / len(names)
    words = [{"text": name, "start": start + n * step, "end": start + (n + 1) * step} for n, name in enumerate(names)]
    say(type="segment", start=start, end=start + 4 * word, text=" ".join(names), words=words)
say(type="done")
