"""Has the same recording transcribed without live status and with it, in turn, and prints the processor time. Called by run."""

import argparse
import http.client
import json
import os
import signal
import socket
import sqlite3
import statistics
import subprocess
import tempfile
import threading
import time
from pathlib import Path

HARK = Path(os.environ["HARK_BIN"]).resolve()
SAMPLE = Path(__file__).resolve().parents[2] / "public/sample.mp3"
TICKS = os.sysconf("SC_CLK_TCK")
BOUNDARY = "a-boundary-of-the-bench"


def convert(seconds, target, *form):
    """The sample again and again, for so many seconds."""
    subprocess.run(["ffmpeg", "-v", "error", "-y", "-stream_loop", "-1", "-i", SAMPLE, "-t", str(seconds), "-ar", "16000",
                    "-ac", "1", *form, target], check=True)


def engine_alone(engine, samples, args):
    """The processor seconds of an engine that is given all samples at once."""
    command = [HARK, "engine", engine]
    if engine == "whisper":
        command += ["--model", args.models / f"ggml-{args.model}.bin", "--language", "en", "--threads", str(args.threads)]
    with open(samples, "rb") as given:
        child = subprocess.Popen(command, stdin=given, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        raise SystemExit(f"hark engine {engine} failed")
    return used.ru_utime + used.ru_stime


class Server:
    """A node of its own, with one worker."""

    def __init__(self, engine, folder, args):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.data = folder / "data"
        env = dict(os.environ, HARK_DATA_DIR=str(self.data), LEPTOS_SITE_ADDR=f"127.0.0.1:{self.port}", HARK_WORKERS="1",
                   HARK_ENGINE=engine, HARK_WHISPER_MODEL=str(args.models / f"ggml-{args.model}.bin"),
                   HARK_WHISPER_THREADS=str(args.threads), HARK_MODEL_FETCH="false", HARK_MAX_STREAMS_PER_OWNER="1000",
                   HARK_MAX_STREAMS_PER_ADDRESS="1000", HARK_MAX_CONNECTIONS_PER_ADDRESS="2000")
        self.process = subprocess.Popen([HARK, "serve"], env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        if not self.process.stdout.readline().startswith("Hark is ready"):
            raise SystemExit("hark serve doesn't start")
        self.cookie = self.ask("GET", "/api/v1/sessions")[1]

    def ask(self, method, path, body=None, **headers):
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        text = answer.read()
        if answer.status >= 300:
            raise SystemExit(f"{method} {path}: {answer.status} {text.decode()}")
        return text, (answer.headers.get("set-cookie") or "").split(";")[0]

    def upload(self, recording):
        part = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name='
        body = (f'{part}"language"\r\n\r\nen\r\n{part}"file"; filename="a.wav"\r\n\r\n'.encode()
                + recording.read_bytes() + f"\r\n--{BOUNDARY}--\r\n".encode())
        text, _ = self.ask("POST", "/api/v1/sessions", body, cookie=self.cookie,
                           content_type=f"multipart/form-data; boundary={BOUNDARY}")
        return json.loads(text)["id"]

    def watch(self, path, counts):
        """Reads a stream in a thread of its own, until it ends, and counts its events."""
        def read():
            with socket.create_connection(("127.0.0.1", self.port)) as stream:
                stream.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nCookie: {self.cookie}\r\n"
                               "Accept: text/event-stream\r\n\r\n".encode())
                while data := stream.recv(65536):
                    counts.append(data.count(b"\nevent: "))
        threading.Thread(target=read, daemon=True).start()

    def cpu(self):
        """Processor seconds of the server, and of its engines and decoders that have ended."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        own = time.clock_gettime(~self.process.pid << 3 | 2)  # the clock of that process: linux/posix-timers.h
        return own, (int(fields[13]) + int(fields[14])) / TICKS

    def wait(self, session):
        """Waits for the end by looking into the database, which costs the server nothing."""
        database = sqlite3.connect(f"file:{self.data}/hark.sqlite?mode=ro", uri=True)
        while True:
            [(state, lines)] = database.execute("SELECT status, segments FROM sessions WHERE id = ?", [session]).fetchall()
            if state == "completed":
                return lines
            if state in ("failed", "cancelled"):
                raise SystemExit(f"the session {state}")
            time.sleep(0.1)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)


def transcribe(engine, recording, watchers, args):
    """The processor seconds of the server and of its children, the events that watchers got, and the lines."""
    with tempfile.TemporaryDirectory() as folder:
        server = Server(engine, Path(folder), args)
        try:
            counts = []
            for _ in range(watchers):
                server.watch("/api/v1/status/stream", counts)
            time.sleep(1)
            own, children = server.cpu()
            session = server.upload(recording)
            for _ in range(watchers):
                server.watch(f"/api/v1/sessions/{session}/status/stream", counts)
            lines = server.wait(session)
            time.sleep(1)  # its children are waited for, and the last events are sent
            own_after, children_after = server.cpu()
            return own_after - own, children_after - children, sum(counts), lines
        finally:
            server.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--engines", nargs="+", default=["whisper", "pocketsphinx"])
    parser.add_argument("--model", default="tiny.en", help="Whisper's model")
    parser.add_argument("--threads", type=int, default=1, help="of Whisper")
    parser.add_argument("--seconds", type=int, default=120, help="length of the recording")
    parser.add_argument("--watchers", type=int, default=20, help="pages with the session, and as many with the list")
    parser.add_argument("--repeat", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        recording, samples = Path(folder) / "recording.wav", Path(folder) / "samples"
        convert(args.seconds, recording)
        convert(args.seconds, samples, "-f", "s16le")
        for engine in args.engines:
            alone, unwatched, watched = [], [], []
            for n in range(args.repeat):
                alone.append(engine_alone(engine, samples, args))
                unwatched.append(transcribe(engine, recording, 0, args))
                watched.append(transcribe(engine, recording, args.watchers, args))
                print(f"{engine} {n + 1}: {alone[-1]:.2f}, {unwatched[-1]}, {watched[-1]}", flush=True)
            name = f"{engine} {args.model}" if engine == "whisper" else engine
            print(table(name, args, alone, unwatched, watched))


def table(name, args, alone, unwatched, watched):
    def median(runs, figure):
        return statistics.median(map(figure, runs))

    text = f"\n### {name}: {args.seconds} s of audio, median of {args.repeat}\n\n"
    text += "| | engine and decoders, CPU s | server, CPU s | server's share | events sent | lines |\n"
    text += "| --- | ---: | ---: | ---: | ---: | ---: |\n"
    text += f"| engine alone | {statistics.median(alone):.2f} | | | | |\n"
    for label, runs in [("nobody watches", unwatched), (f"{2 * args.watchers} streams watch", watched)]:
        server, children = median(runs, lambda run: run[0]), median(runs, lambda run: run[1])
        share = median(runs, lambda run: run[0] / (run[0] + run[1]))
        events, lines = median(runs, lambda run: run[2]), median(runs, lambda run: run[3])
        text += f"| {label} | {children:.2f} | {server:.3f} | {share:.2%} | {events:.0f} | {lines:.0f} |\n"
    pairs = [(one[0], other[0], sum(other[:2])) for one, other in zip(unwatched, watched)]
    text += f"\nWatchers: {statistics.median((w - u) / whole for u, w, whole in pairs):+.2%} of all processor time.\n"
    return text


if __name__ == "__main__":
    main()
