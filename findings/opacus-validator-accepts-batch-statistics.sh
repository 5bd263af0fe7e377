#!/usr/bin/env bash
# Opacus' ModuleValidator and layers that mix the rows of a batch or keep statistics of it.
# torch 2.13.0, opacus 1.6.0. Expected: refused, since "BatchNorm cannot support training with differential
# privacy" (its own message). Seen: accepted where they own no trained parameter (affine=False, frozen,
# SyncBatchNorm) and InstanceNorm with running statistics at all: one row's gradient changes with the
# others, and the buffers take up the batch without noise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 opacus==1.6.0
cat > "$folder/try.py" <<'PYTHON'
import opacus
import torch
from opacus.validators import ModuleValidator
from torch import nn

print("torch", torch.__version__, "opacus", opacus.__version__)
kinds = {
    "BatchNorm2d(affine=False)": nn.BatchNorm2d(2, affine=False),
    "BatchNorm2d, frozen": nn.BatchNorm2d(2).requires_grad_(False),
    "InstanceNorm2d(track_running_stats=True)": nn.InstanceNorm2d(2, track_running_stats=True),
}
for name, norm in kinds.items():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), norm, nn.Flatten(), nn.Linear(32, 1)).train()
    assert ModuleValidator.validate(model, strict=False) == []
    x, before = torch.randn(4, 1, 6, 6), norm.running_mean.clone()
    changed = torch.cat([x[:1], 3 * torch.randn(3, 1, 6, 6)])
    first, second = (
        torch.autograd.grad(model(batch)[0].sum(), model[0].weight)[0] for batch in (x, changed)
    )
    moved = float((first - second).abs().max() / first.abs().max())
    kept = float((norm.running_mean - before).abs().max())
    print(f"{name}: accepted; row 0's gradient moves by {moved:.2g}, the buffer by {kept:.2g}")
    assert kept > 0.005
    assert moved > 0.05 or "Instance" in name
assert ModuleValidator.validate(nn.SyncBatchNorm(2, affine=False), strict=False) == []
PYTHON
cd "$folder"
"$folder/venv/bin/python" -W ignore try.py
