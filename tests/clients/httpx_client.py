# Reads one response with the Python package `httpx-sse` and prints each event as a line of JSON.
import json
import sys

import httpx
from httpx_sse import connect_sse

url, cookie = sys.argv[1:]
with httpx.Client(timeout=None, headers={"Cookie": cookie}, trust_env=False) as client:
    with connect_sse(client, "GET", url) as source:
        for event in source.iter_sse():
            print(json.dumps({"event": event.event, "id": event.id, "data": event.data}), flush=True)
