#!/usr/bin/env bash
# Nearest neighbours of 50 places among 198 in torch and in onnxruntime.
# torch 2.13.0, onnx 1.20.0, onnxruntime 1.23.2. Expected: place i takes floor(i * 50 / 198), the definition of
# ONNX Resize (nearest, asymmetric, floor), to which torch exports `interpolate`. Seen: torch multiplies
# i by float32(50 / 198) and takes place 24 at i = 99, where 99 * 50 / 198 is exactly 25; onnxruntime, given
# the sizes, takes 25. An exported model answers otherwise there.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6 onnx==1.20.0 onnxruntime==1.23.2
cat > "$folder/try.py" <<'PYTHON'
import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper

print("torch", torch.__version__, "onnx", onnx.__version__, "onnxruntime", onnxruntime.__version__)
row = np.arange(50, dtype=np.float32)[None, None]
exact = np.arange(198) * 50 // 198
by_torch = torch.nn.functional.interpolate(torch.from_numpy(row), 198).numpy()[0, 0]

node = helper.make_node(
    "Resize", ["x", "", "", "sizes"], ["y"], mode="nearest", nearest_mode="floor",
    coordinate_transformation_mode="asymmetric",
)
x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 1, w]) for n, w in (("x", 50), ("y", 198)))
sizes = helper.make_tensor("sizes", TensorProto.INT64, [3], [1, 1, 198])
graph = helper.make_graph([node], "g", [x], [y], [sizes])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
by_onnx = session.run(None, {"x": row})[0][0, 0]

print("torch differs from whole numbers at", np.flatnonzero(by_torch != exact).tolist())
print("onnxruntime differs from whole numbers at", np.flatnonzero(by_onnx != exact).tolist())
assert np.flatnonzero(by_torch != exact).tolist() == [99]
assert by_torch[99] == 24
assert (by_onnx == exact).all()
PYTHON
cd "$folder"
"$folder/venv/bin/python" -W ignore try.py
