"""Measures the search in texts on SQLite: fills a database with hours of made text, starts Hark on it, and asks it."""

import argparse
import http.client
import json
import os
import random
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import uuid
from pathlib import Path

import apsw

# What an hour of speech has: about 9000 words, in lines of ten.
LINES_AN_HOUR = 900
WORDS_A_LINE = 10
VOCABULARY = 60_000
# Lines are drawn from this many, because making each word of ten thousand hours would take longer than storing them.
DISTINCT_LINES = 300_000
MIGRATION = Path(__file__).parent / "../../src/server/store/migrations/sqlite/0016_search.sql"


def vocabulary(dice):
    """Words that look like words, the most frequent of which are short."""
    starts = ["b", "br", "c", "ch", "d", "f", "g", "gr", "h", "k", "l", "m", "n", "p", "pr", "r", "s", "st", "t", "th", "v", "w"]
    vowels, ends = ["a", "e", "i", "o", "u", "ea", "ou"], ["", "", "n", "r", "s", "t", "nd", "ng", "ly", "tion"]
    words = {}
    while len(words) < VOCABULARY:
        syllables = 1 if len(words) < 200 else dice.choice([1, 2, 2, 3])
        word = "".join(dice.choice(starts) + dice.choice(vowels) for _ in range(syllables)) + dice.choice(ends)
        words.setdefault(word, None)
    return list(words)


class Server:
    def __init__(self, program, data):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        env = {**os.environ, "LEPTOS_SITE_ADDR": f"127.0.0.1:{self.port}", "HARK_DATA_DIR": str(data), "HARK_WORKER_TOKEN": "bench",
               "HARK_MODEL_FETCH": "false"}
        self.process = subprocess.Popen([program, "serve"], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(600):
            try:
                self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
                self.connection.connect()
                return
            except OSError:
                if self.process.poll() is not None:
                    sys.exit("the server didn't start")
                time.sleep(0.1)
        sys.exit("the server doesn't answer")

    def ask(self, method, path, body=None, headers={}):
        self.connection.request(method, path, body, headers)
        answer = self.connection.getresponse()
        content = answer.read()
        if answer.status >= 300:
            sys.exit(f"{method} {path}: {answer.status} {content[:300]}")
        return answer, content

    def visitor(self):
        """A cookie, and the owner whom it names."""
        answer, _ = self.ask("GET", "/api/v1/sessions")
        cookie = answer.getheader("set-cookie").split(";")[0]
        owner = urllib.parse.unquote(cookie.split("=", 1)[1])[44:].split(".")[0]
        return cookie, owner

    def stop(self):
        self.connection.close()
        self.process.terminate()
        self.process.wait()


def fill(file, hours, owners, lines, dice, at_once):
    """Adds sessions of half an hour, as copies of the one that is there, with their lines. at_once: the index is made afterwards, by
    the statement with which the migration makes it. Returns the seconds it took, and sizes."""
    began = time.monotonic()
    database = apsw.Connection(str(file))
    database.pragma("journal_mode", "wal")
    database.pragma("synchronous", "off")
    database.pragma("cache_size", -400_000)
    if at_once:
        (trigger,) = database.execute("SELECT sql FROM sqlite_master WHERE name = 'search_segment_added'").fetchone()
        database.execute("DROP TRIGGER search_segment_added")
    columns = [row[1] for row in database.execute("PRAGMA table_info(sessions)")]
    template = dict(zip(columns, database.execute("SELECT * FROM sessions LIMIT 1").fetchone()))
    insert_session = f"INSERT INTO sessions ({','.join(columns)}) VALUES ({','.join('?' * len(columns))})"
    insert_line = "INSERT INTO segments (session_id, idx, start_s, end_s, text, words) VALUES (?, ?, ?, ?, ?, '[]')"
    sessions = [owner for owner, share in owners for _ in range(max(1, round(hours * 2 * share)))]
    dice.shuffle(sessions)
    now = 1_700_000_000_000
    for at in range(0, len(sessions), 200):
        with database:
            for n, owner in enumerate(sessions[at:at + 200], at):
                stamp = now + n * 60_000
                name = str(uuid.UUID(int=(stamp << 80) | (7 << 76) | (2 << 62) | dice.getrandbits(62)))
                row = {**template, "id": name, "owner": owner, "title": f"Recording {n}", "created_at": stamp, "status": "completed",
                       "segments": LINES_AN_HOUR // 2, "finished_at": stamp, "lease_until": None}
                database.execute(insert_session, [row[column] for column in columns])
                chosen = dice.choices(lines, k=LINES_AN_HOUR // 2)
                # A name that nobody else says.
                chosen[dice.randrange(len(chosen))] += f" unique{n}"
                database.executemany(insert_line, ((name, i, i * 4.0, i * 4.0 + 4.0, text) for i, text in enumerate(chosen)))
        if at % 2000 == 0:
            print(f"  {at} of {len(sessions)} sessions", file=sys.stderr)
    if at_once:
        with database:
            database.execute(MIGRATION.read_text().split(";")[-2])
            database.execute(trigger)
    database.pragma("wal_checkpoint", "truncate")
    pages = database.pragma("page_count") * database.pragma("page_size")
    text = database.execute("SELECT SUM(octet_length(text)) FROM segments").fetchone()[0]
    index = database.execute("SELECT SUM(octet_length(block)) FROM segment_search_data").fetchone()[0]
    database.close()
    return time.monotonic() - began, pages, text, index, len(sessions)


def queries(words, lines, sessions, dice, count):
    common, middle, rare = words[:30], words[500:5000], words[30_000:]
    line = lambda: dice.choice(lines).split()
    pair = lambda words: f"{words[3]} {words[7]}"
    # Its last word still being typed: the first four to six letters.
    begun = lambda: next(w[:dice.randint(4, 6)] for w in iter(lambda: dice.choice(middle), None) if len(w) >= 5)
    kinds = {
        "a common word": lambda: dice.choice(common) + " ",
        "a word": lambda: dice.choice(middle) + " ",
        "a rare word": lambda: dice.choice(rare) + " ",
        "a name said once": lambda: f"unique{dice.randrange(sessions)} ",
        "two words of a line": lambda: pair(line()) + " ",
        "two common words": lambda: f"{dice.choice(common)} {dice.choice(common)} ",
        "four words in quotes": lambda: '"' + " ".join(line()[2:6]) + '"',
        "the beginning of a word": begun,
        "a word and the beginning of one": lambda: f"{dice.choice(middle)} {begun()}",
        "nothing that is there": lambda: "zzyzx qwerty ",
    }
    return {kind: [make() for _ in range(count)] for kind, make in kinds.items()}


def measure(server, cookie, wanted):
    took = []
    found = 0
    for query in wanted:
        path = "/api/v1/search?q=" + urllib.parse.quote(query)
        began = time.perf_counter()
        _, content = server.ask("GET", path, headers={"cookie": cookie})
        took.append((time.perf_counter() - began) * 1000)
        found += len(json.loads(content)["sessions"])
    return sorted(took), found / len(wanted)


def at(took, share):
    return took[min(len(took) - 1, int(len(took) * share))]


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--hark", required=True, help="the program")
    arguments.add_argument("--hours", type=int, default=10_000, help="hours of text (10000)")
    arguments.add_argument("--queries", type=int, default=100, help="queries of each kind (100)")
    arguments.add_argument("--at-once", action="store_true", help="make the index at once, as the migration does, not line by line")
    arguments.add_argument("--folder", help="a folder that is kept, and used again if it is there")
    options = arguments.parse_args()
    dice = random.Random(1)
    words = vocabulary(dice)
    weights = [1 / (n + 3) for n in range(len(words))]
    flat = dice.choices(words, weights, k=DISTINCT_LINES * WORDS_A_LINE)
    lines = [" ".join(flat[n:n + WORDS_A_LINE]) for n in range(0, len(flat), WORDS_A_LINE)]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(options.folder or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        notes = folder / "bench.json"
        if not notes.exists():
            server = Server(options.hark, folder)
            most, few = server.visitor(), server.visitor()
            made = json.dumps({"title": "made", "duration_total": 1800.0})
            server.ask("POST", "/api/v1/sessions", made, {"authorization": "Bearer bench", "content-type": "application/json", "cookie": most[0]})
            server.stop()
            file = next(path for path in folder.iterdir() if re.search(r"\.(sqlite|db)", path.name) and "-" not in path.name)
            shares = [(most[1], 0.99), (few[1], 0.01)]
            took, size, text, index, sessions = fill(file, options.hours, shares, lines, dice, options.at_once)
            notes.write_text(json.dumps({"most": most[0], "few": few[0], "took": took, "size": size, "text": text, "index": index,
                                         "sessions": sessions}))
        known = json.loads(notes.read_text())
        print(f"{options.hours} hours, {known['sessions']} sessions, {known['text'] / 1e6:.0f} MB of text; the index has "
              f"{known['index'] / 1e6:.0f} MB; filled in {known['took']:.0f} s\n")
        server = Server(options.hark, folder)
        measure(server, known["most"], ["warm up"] * 5)
        print("| query | sessions found | p50 ms | p95 ms | p99 ms | most ms |\n| --- | ---: | ---: | ---: | ---: | ---: |")
        everything = []
        wanted = queries(words, lines, known["sessions"], random.Random(2), options.queries)
        for kind, list_of in wanted.items():
            took, found = measure(server, known["most"], list_of)
            everything += took
            print(f"| {kind} | {found:.1f} | {at(took, .5):.1f} | {at(took, .95):.1f} | {at(took, .99):.1f} | {took[-1]:.1f} |", flush=True)
        took, found = measure(server, known["few"], wanted["a common word"] + wanted["a rare word"])
        print(f"| an owner with a hundredth | {found:.1f} | {at(took, .5):.1f} | {at(took, .95):.1f} | {at(took, .99):.1f} | {took[-1]:.1f} |")
        everything = sorted(everything + took)
        print(f"| all | | {at(everything, .5):.1f} | {at(everything, .95):.1f} | {at(everything, .99):.1f} | {everything[-1]:.1f} |")
        server.stop()


main()
