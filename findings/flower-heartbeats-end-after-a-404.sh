#!/usr/bin/env bash
# One heartbeat that is answered 404 ends a SuperNode's heartbeats for good, and nothing is said.
# flwr 1.41.0. Expected, as after 502, 503 and 504: it is tried again, or the node ends. 404, 413 and
# 429 are what reverse proxies answer while they are reloaded or limit rates (RFC 6585, section 4).
# Seen: the thread of the heartbeats ends with HTTPStatusError, the connection goes on as if nothing
# were, and the SuperLink counts the node as away a minute later.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet "flwr==1.41.0"
cat > "$place/script.py" <<'PYTHON'
import importlib.metadata
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from flwr.proto.fleet_pb2 import ActivateNodeResponse
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatResponse
from flwr.supernode import fleet_http_connection as connection

print("flwr", importlib.metadata.version("flwr"))
answers = []


class SuperLink(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        code, body = 200, ActivateNodeResponse(node_id=7).SerializeToString()
        if self.path.endswith("heartbeat"):
            code = codes.pop(0) if codes else 200
            answers.append(code)
            body = SendNodeHeartbeatResponse(success=True).SerializeToString()
        self.send_response(code)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), SuperLink)
threading.Thread(target=server.serve_forever, daemon=True).start()
threading.excepthook = lambda what: print("a thread ended with", what.exc_type.__name__)
senders = []
real = connection.HeartbeatSender
connection.HeartbeatSender = lambda fn: senders.append(real(fn)) or senders[-1]
ended = {}
for first in (503, 404, 413, 429):
    codes = [first]
    answers.clear()
    with connection.http_request_response(f"127.0.0.1:{server.server_port}", True):
        end = time.monotonic() + 15
        while time.monotonic() < end and senders[-1].is_running and 200 not in answers:
            time.sleep(0.05)
        ended[first] = not senders[-1].is_running
        print(f"first heartbeat answered {first}: answers {answers}, heartbeats ended: {ended[first]}")
assert ended == {503: False, 404: True, 413: True, 429: True}, ended
PYTHON
FLWR_TELEMETRY_ENABLED=0 "$place/venv/bin/python" "$place/script.py"
