# A speech engine for tests that says where each word begins: lines of four words, a word for each second, or for as many
# seconds as its argument says.
import json
import sys


def say(**line):
    print(json.dumps(line), flush=True)


say(type="ready", protocol=1, model="words")
samples = 0
while data := sys.stdin.buffer.read(65536):
    samples += len(data) // 2
word = float(sys.argv[1]) if len(sys.argv) > 1 else 1
for line in range(int(samples / 16000 / word / 4 + 0.5)):
    names = ["line%d" % line, "second", "third", "fourth"]
    start = line * 4 * word
    words = [{"text": name, "start": start + n * word, "end": start + (n + 1) * word} for n, name in enumerate(names)]
    say(type="segment", start=start, end=start + 4 * word, text=" ".join(names), words=words)
say(type="done")
