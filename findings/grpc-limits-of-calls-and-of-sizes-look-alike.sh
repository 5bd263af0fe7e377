#!/usr/bin/env bash
# gRPC answers RESOURCE_EXHAUSTED to a message beyond the limit, and to any call, health checks too,
# while maximum_concurrent_rpcs calls are being answered. grpcio 1.85.1. Expected: a code of its own,
# such as UNAVAILABLE ("most likely a transient condition", grpc.io/docs/guides/status-codes), since
# one can be tried again and the other cannot. Seen: the text alone tells them apart.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet "grpcio==1.85.1" "grpcio-health-checking==1.81.1"
cat > "$place/script.py" <<'PYTHON'
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

print("grpcio", grpc.__version__)
begun, go_on = threading.Event(), threading.Event()


def slow(request, context):
    begun.set()
    go_on.wait(60)
    return b""


server = grpc.server(ThreadPoolExecutor(4), maximum_concurrent_rpcs=1,
                     options=[("grpc.max_receive_message_length", 1_000)])
handler = grpc.unary_unary_rpc_method_handler(slow)
server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("x.Y", {"Slow": handler})])
servicer = health.HealthServicer()
servicer.set("", health_pb2.HealthCheckResponse.SERVING)
health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
port = server.add_insecure_port("127.0.0.1:0")
server.start()
found = {}
with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
    call = channel.unary_unary("/x.Y/Slow")
    try:
        call(bytes(2_000), timeout=10)
    except grpc.RpcError as error:
        found["too large"] = error.code().name, error.details()
    waiting = call.future(b"")
    begun.wait(10)
    try:
        health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
    except grpc.RpcError as error:
        found["health check of a busy server"] = error.code().name, error.details()
    go_on.set()
    waiting.result(10)
for what, (code, text) in found.items():
    print(f"{what}: {code}: {text}")
assert [code for code, _ in found.values()] == ["RESOURCE_EXHAUSTED"] * 2, found
assert len({text for _, text in found.values()}) == 2
server.stop(None).wait()
sys.exit(0)
PYTHON
"$place/venv/bin/python" "$place/script.py"
