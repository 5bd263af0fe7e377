#!/usr/bin/env bash
# The error reply for a node that is away names node 1 as its sender, not the node that was asked.
# flwr 1.41.0. Expected, as of replies that nodes give: metadata.src_node_id is whoever was asked, so
# that answers can be sorted by node. Seen: the SuperLink makes errors 3, 4 and 5 itself and signs
# them with its own id; only reply_to_message_id tells whose they are. Who sorts by node waits for an
# answer that has come, and calls it late.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet "flwr==1.41.0"
cat > "$place/script.py" <<'PYTHON'
import importlib.metadata

from flwr.app import Message, RecordDict
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.server.superlink.linkstate.utils import (
    create_message_error_unavailable_ins_message,
    create_message_error_unavailable_res_message,
)
from flwr.supercore.task_identity import TaskIdentity

print("flwr", importlib.metadata.version("flwr"))
TaskIdentity.run_id = TaskIdentity.task_id = 5
TaskIdentity.node_id = SUPERLINK_NODE_ID
question = Message(RecordDict(), dst_node_id=77, message_type="query")
question.metadata.__dict__["_message_id"] = "the-question"
for reply in (
    create_message_error_unavailable_res_message(question.metadata, "node_unavail"),
    create_message_error_unavailable_res_message(question.metadata, "msg_unavail"),
    create_message_error_unavailable_ins_message("the-question", 5),
):
    known = reply.metadata
    print(f"asked node 77; error {reply.error.code} comes from node {known.src_node_id}, "
          f"in reply to {known.reply_to_message_id!r}")
    assert known.src_node_id == SUPERLINK_NODE_ID == 1
    assert known.reply_to_message_id == "the-question"
PYTHON
FLWR_TELEMETRY_ENABLED=0 "$place/venv/bin/python" "$place/script.py"
