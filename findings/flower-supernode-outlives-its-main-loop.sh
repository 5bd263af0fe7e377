#!/usr/bin/env bash
# A SuperNode whose question for work is answered 404 once asks for no more, and its process lives.
# flwr 1.41.0. Expected: it asks again, or the process ends, so that what watches it starts it again.
# Seen: the main loop ends with the exception logged; the HTTP server for ClientApps runs in a thread
# that is no daemon and keeps the process, whose gRPC health page accepts calls and never answers.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet "flwr==1.41.0" "grpcio-health-checking==1.81.1"
cat > "$place/script.py" <<'PYTHON'
import importlib.metadata
import os
import pathlib
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
from flwr.proto.fleet_pb2 import ActivateNodeResponse
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatResponse
from grpc_health.v1 import health_pb2, health_pb2_grpc

print("flwr", importlib.metadata.version("flwr"))
pulls = []


class SuperLink(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        code, body = 200, b""
        if self.path.endswith("activate-node"):
            body = ActivateNodeResponse(node_id=7).SerializeToString()
        elif self.path.endswith("heartbeat"):
            body = SendNodeHeartbeatResponse(success=True).SerializeToString()
        elif self.path.endswith("pull-messages"):
            pulls.append(time.monotonic())
            code = 404 if len(pulls) == 1 else 200
        self.send_response(code)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as one:
        return one.getsockname()[1]


server = ThreadingHTTPServer(("127.0.0.1", 0), SuperLink)
threading.Thread(target=server.serve_forever, daemon=True).start()
health = f"127.0.0.1:{free_port()}"
place = pathlib.Path(sys.argv[0]).parent
node = subprocess.Popen(
    [str(place / "venv/bin/flower-supernode"), "--insecure", "--isolation", "process",
     "--superlink", f"127.0.0.1:{server.server_port}", "--port", str(free_port()),
     "--health-server-address", health],
    env={**os.environ, "FLWR_HOME": str(place / "home")},
    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
)
try:
    end = time.monotonic() + 60
    while not pulls and time.monotonic() < end:
        time.sleep(0.1)
    time.sleep(10)  # it would ask every 3 s
    alive = node.poll() is None
    with grpc.insecure_channel(health) as channel:
        try:
            health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
            said = "answers"
        except grpc.RpcError as error:
            said = error.code().name
    print(f"questions for work: {len(pulls)}; process alive: {alive}; health page: {said}")
    assert (len(pulls), alive, said) == (1, True, "DEADLINE_EXCEEDED")
finally:
    node.kill()
    node.wait()
PYTHON
FLWR_TELEMETRY_ENABLED=0 FLWR_DISABLE_UPDATE_CHECK=1 "$place/venv/bin/python" "$place/script.py"
