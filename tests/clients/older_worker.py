# A worker that was written for another system, with nothing but Python's standard library: its reports have no version, times
# without a zone, the status `pending` and a stage of its own, and its last one says `"progress": 0`. Arguments: an http:// or
# redis:// address, the session's id, the worker token, and which of the reports to send. Prints the answers over HTTP.
import json
import socket
import sys
import urllib.error
import urllib.parse
import urllib.request
from datetime import datetime, timezone

address, session, token, *which = sys.argv[1:]


def send(report):
    report["timestamp"] = datetime.now(timezone.utc).replace(tzinfo=None).isoformat()
    body = json.dumps(report).encode()
    if address.startswith("redis:"):
        at = urllib.parse.urlsplit(address)
        parts = [b"PUBLISH", b"transcription:status:" + session.encode(), body]
        with socket.create_connection((at.hostname, at.port), timeout=30) as redis:
            redis.sendall(b"*3\r\n" + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts))
            assert redis.recv(64).startswith(b":"), "Redis refused the message"
        return
    url = f"{address}/api/v1/sessions/{session}/status"
    request = urllib.request.Request(url, body, {"Authorization": "Bearer " + token}, method="PUT")
    try:
        print(urllib.request.urlopen(request, timeout=30).status)
    except urllib.error.HTTPError as error:
        print(error.code, error.read().decode())


reports = [
    {"status": "pending", "progress": 0, "message": "Waiting for a GPU"},
    {"status": "processing", "progress": 0, "stage": "transcribing", "processing_speed": 0.0},
    {"status": "processing", "progress": 40, "stage": "transcribing", "duration_processed": 40},
    {"status": "processing", "progress": 35, "stage": "diarizing <speakers>"},
    {"status": "failed", "progress": 0, "error": "The model ran out of memory"},
]
for index in which:
    send(reports[int(index)])
