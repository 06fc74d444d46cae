# A worker in another language: publishes a session's statuses and segments to Redis with the package `redis`.
# Arguments: the address of Redis, the id of a session made by POST /api/v1/sessions, and one text for each segment.
import json
import sys
from datetime import datetime, timezone

import redis

url, session, *texts = sys.argv[1:]
server = redis.Redis.from_url(url)
version = 1


def publish(message):
    server.publish(f"transcription:status:{session}", json.dumps({"session_id": session, **message}))


def status(state, done, stage="transcribing"):
    global version
    version += 1
    share = 100 * done / len(texts)
    publish({
        "version": version, "status": state, "stage": stage, "message": f"{done} of {len(texts)}",
        "progress": share if share < 100 or state == "completed" else 99.9,
        "timestamp": datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "duration_processed": float(done), "duration_total": float(len(texts)), "estimated_completion": None,
        "processing_speed": None, "segments": done, "queue_position": None, "attempt": 1, "error": None,
    })


status("processing", 0, "loading_model")
for index, text in enumerate(texts):
    publish({"index": index, "start": float(index), "end": index + 1.0, "text": text})
    status("processing", index + 1)
status("completed", len(texts))
