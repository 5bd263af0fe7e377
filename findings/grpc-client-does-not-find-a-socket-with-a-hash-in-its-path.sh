#!/usr/bin/env bash
# A gRPC server makes its Unix socket at `unix:/tmp/a#b/s`, and a client with the same text cannot
# connect. grpcio 1.85.1. Expected: the same text names the same socket at both ends, as
# grpc/doc/naming.md says of `unix:path`. Seen: both take it for an URI (RFC 3986) where the client
# ends the path at `#` and `?`; with %23 both ends agree. A comma cannot be escaped: it divides
# addresses.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet "grpcio==1.85.1" "grpcio-health-checking==1.81.1"
cat > "$place/script.py" <<'PYTHON'
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

print("grpcio", grpc.__version__)


def asked(path, target):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    server = grpc.server(ThreadPoolExecutor(1))
    servicer = health.HealthServicer()
    servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    server.add_insecure_port(target)
    server.start()
    made = os.path.exists(path)
    try:
        with grpc.insecure_channel(target) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            stub.Check(health_pb2.HealthCheckRequest(), timeout=10)
        said = "connects"
    except grpc.RpcError as error:
        said = error.code().name
    server.stop(None).wait()
    return made, said


found = {}
for name in ("plain", "a#b", "a?b", "a,b"):
    path = f"{sys.argv[1]}/{name}/s"
    for how, target in (("as it is", f"unix:{path}"), ("quoted", f"unix:{quote(path)}")):
        found[name, how] = asked(path, target)
        print(f"{name:6} {how:9} socket at the path: {found[name, how][0]}; client: "
              f"{found[name, how][1]}")
good, bad = (True, "connects"), (True, "UNAVAILABLE")
assert found["plain", "as it is"] == found["a#b", "quoted"] == found["a?b", "quoted"] == good
assert found["a#b", "as it is"] == found["a?b", "as it is"] == bad
assert found["a,b", "as it is"] == found["a,b", "quoted"] == bad
PYTHON
"$place/venv/bin/python" "$place/script.py" "$place" 2> /dev/null
