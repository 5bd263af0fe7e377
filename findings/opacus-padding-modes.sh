#!/usr/bin/env bash
# Opacus' per-sample gradients of convolutions with circular, reflected or replicated padding.
# torch 2.13.0, opacus 1.6.0. Expected: those of a loop over the rows, by the definition of a per-sample
# gradient (Abadi et al. 2016, Algorithm 1), or a refusal. Seen: gradients as if the padding were zeros,
# off by 15 % and more of the largest, without a word; a norm that is too small is clipped too little.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 opacus==1.6.0
cat > "$folder/try.py" <<'PYTHON'
import opacus
import torch
from opacus.grad_sample import GradSampleModule
from opacus.validators import ModuleValidator
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


print("torch", torch.__version__, "opacus", opacus.__version__)
torch.manual_seed(0)
for mode in ("zeros", "circular", "reflect", "replicate"):
    for layer, x in (
        (nn.Conv1d(3, 4, 3, padding=1, padding_mode=mode), torch.randn(4, 3, 12)),
        (nn.Conv2d(2, 4, 3, padding=1, padding_mode=mode), torch.randn(4, 2, 6, 6)),
    ):
        accepted = not ModuleValidator.validate(layer, strict=False)
        error = against_a_loop(layer, x)
        print(f"{type(layer).__name__} {mode}: validator accepts {accepted}, error {error:.2g}")
        assert accepted
        assert error < 1e-5 if mode == "zeros" else error > 0.1
PYTHON
cd "$folder"
"$folder/venv/bin/python" -W ignore try.py
