#!/usr/bin/env bash
# Opacus' per-sample gradient of a weight that is used by its layer and once more by F.linear.
# torch 2.13.0, opacus 1.6.0. Expected: the gradient of both uses, as autograd gives it for one row, or a
# refusal. Seen: only the layer's use is counted, .grad_sample and .grad disagree, and nothing is said
# (a weight tied to a second *layer* is right).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 opacus==1.6.0
cat > "$folder/try.py" <<'PYTHON'
import opacus
import torch
import torch.nn.functional as F
from opacus.grad_sample import GradSampleModule
from torch import nn


def against_a_loop(model, x):
    """Largest difference to a loop over the rows, over the largest gradient."""
    hooked = GradSampleModule(model, loss_reduction="sum")
    hooked(x).flatten(1).square().sum().backward()
    found = [p.grad_sample.clone() for p in hooked._module.parameters()]
    model = hooked.to_standard_module()
    parameters = list(model.parameters())
    alone = [torch.autograd.grad(model(row[None]).square().sum(), parameters) for row in x]
    wanted = [torch.stack(each) for each in zip(*alone)]
    largest = max(float(w.abs().max()) for w in wanted)
    return max(float((f - w).abs().max()) for f, w in zip(found, wanted)) / largest


class Again(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def forward(self, x):
        return F.linear(self.layer(x).tanh(), self.layer.weight)


class TwoLayers(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.last = nn.Linear(6, 6), nn.Linear(6, 6)
        self.last.weight = self.layer.weight

    def forward(self, x):
        return self.last(self.layer(x).tanh())


print("torch", torch.__version__, "opacus", opacus.__version__)
torch.manual_seed(0)
again, tied = (against_a_loop(kind(), torch.randn(4, 6)) for kind in (Again, TwoLayers))
print(f"used again by F.linear: error {again:.2g}; tied to a second layer: error {tied:.2g}")
assert again > 0.2
assert tied < 1e-5
PYTHON
cd "$folder"
"$folder/venv/bin/python" -W ignore try.py
