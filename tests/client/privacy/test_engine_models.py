"""A user's own model is clipped as by a loop over the rows in float64, or refused by name."""

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from client.privacy.engine import ClipGroup, DpEngine, EngineError
from client.privacy.layer_rules import RULES
from client.privacy.models import modules
from client.privacy.noise import SeededNoise
from medformer.layers import Latents
from medformer.model import Medformer
from tests.client.privacy.test_engine import PLAN
from tests.helpers.clipping import clipped_sum_of

COUNT = 5
VECTORS = (6,)
TOKENS = (4, 6)
SIGNALS = (3, 10)
IMAGES = (2, 6, 6)
VOLUMES = (1, 4, 4, 4)
Loss = Callable[[Tensor], Tensor]


class Own(nn.Module):
    """A user's own class, made of layers and a function of them and of the batch."""

    def __init__(self, function: Callable[..., Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def linear() -> nn.Linear:
    return nn.Linear(6, 6)


def zero() -> nn.Linear:
    layer = nn.Linear(6, 6, bias=False)
    nn.init.zeros_(layer.weight)
    return layer


def attention(**settings: bool) -> nn.MultiheadAttention:
    return nn.MultiheadAttention(6, 2, **settings)


def first(answer: object) -> Tensor:
    while isinstance(answer, tuple):
        answer = answer[0]
    assert isinstance(answer, Tensor)
    return answer


def squares(answer: Tensor) -> Tensor:
    return answer.flatten(1).square().sum(1)


def inputs(shape: tuple[int, ...], words: bool = False) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    if words:
        return torch.randint(0, 9, (COUNT, 4), generator=generator)
    return torch.randn(COUNT, *shape, generator=generator)


def clipped(model: nn.Module, x: Tensor, loss: Loss = squares) -> dict[str, Tensor]:
    """Return the engine's sum over one batch."""
    named = {n: p for n, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.SGD(named.values(), lr=1.0)
    groups = [ClipGroup(tuple(named), PLAN.max_grad_norm)]
    with DpEngine(model, PLAN, groups, optimizer, SeededNoise(1)) as engine:
        engine.accumulate(lambda rows: loss(first(model(x[rows]))), torch.ones(len(x)).bool())
        return clipped_sum_of(engine, model)


def by_loop(model: nn.Module, x: Tensor, loss: Loss = squares) -> dict[str, Tensor]:
    """Compute the clipped sum row by row, with plain autograd in float64."""
    model = copy.deepcopy(model).double().train()
    named = {n: p for n, p in model.named_parameters() if p.requires_grad}
    total = {n: torch.zeros_like(p) for n, p in named.items()}
    for row in x.double() if x.is_floating_point() else x:
        value = loss(first(model(row[None]))).sum()
        found = torch.autograd.grad(value, list(named.values()), allow_unused=True)
        pairs = zip(named.values(), found, strict=True)
        gradients = [torch.zeros_like(p) if g is None else g for p, g in pairs]
        norm = float(torch.stack([g.square().sum() for g in gradients]).sum().sqrt())
        for name, gradient in zip(named, gradients, strict=True):
            total[name] += gradient * min(1.0, PLAN.max_grad_norm / (norm + 1e-6))
    return total


def tied() -> nn.Module:
    table, last = nn.Embedding(9, 6), nn.Linear(6, 9, bias=False)
    last.weight = table.weight
    return nn.Sequential(table, nn.Tanh(), last)


def states(recurrent: nn.Module) -> nn.Module:
    """Answer with the last states, whose examples lie on the second axis."""
    return Own(lambda m, x: first(m.layer(x)[1]).transpose(0, 1), layer=recurrent)


GOOD: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "sequential": (lambda: nn.Sequential(linear(), nn.Dropout(0.0), nn.Tanh(), linear()), VECTORS),
    **{
        f"conv {len(shape) - 1}d {mode} {padding}": (
            lambda kind=kind, shape=shape, mode=mode, padding=padding: nn.Sequential(
                kind(shape[0], 4, 3, padding=padding, padding_mode=mode), nn.Tanh()
            ),
            shape,
        )
        for kind, shape in ((nn.Conv1d, SIGNALS), (nn.Conv2d, IMAGES), (nn.Conv3d, VOLUMES))
        for mode in ("zeros", "circular", "reflect", "replicate")
        for padding in (2, "same")
    },
    "conv 2d valid, grouped, dilated": (
        lambda: nn.Conv2d(2, 4, 2, padding="valid", groups=2, dilation=2),
        IMAGES,
    ),
    "transposed conv": (lambda: nn.ConvTranspose2d(2, 3, 3, 2, 1, output_padding=1), IMAGES),
    "used twice": (lambda: Own(lambda m, x: m.a(m.a(x).tanh()), a=linear()), VECTORS),
    "guest used twice": (
        lambda: Own(lambda m, x: m.a(m.a(x).tanh()), a=nn.ConvTranspose2d(2, 2, 3)),
        IMAGES,
    ),
    "instance norm": (
        lambda: nn.Sequential(nn.Conv2d(2, 2, 3), nn.InstanceNorm2d(2, affine=True), nn.Tanh()),
        IMAGES,
    ),
    "group norm, no parameters": (
        lambda: nn.Sequential(nn.Conv2d(2, 2, 3), nn.GroupNorm(1, 2, affine=False), nn.Tanh()),
        IMAGES,
    ),
    "layer norm, no bias": (
        lambda: nn.Sequential(linear(), nn.LayerNorm(6, bias=False), linear()),
        VECTORS,
    ),
    "rms norm": (lambda: nn.Sequential(linear(), nn.RMSNorm(6), linear()), VECTORS),
    "prelu": (lambda: nn.Sequential(linear(), nn.PReLU(6)), VECTORS),
    "bilinear": (lambda: Own(lambda m, x: m.a(x, x.tanh()), a=nn.Bilinear(6, 6, 3)), VECTORS),
    "attention": (
        lambda: Own(lambda m, x: m.a(x, x, x)[0], a=attention(batch_first=True)),
        TOKENS,
    ),
    "transformer": (
        lambda: nn.TransformerEncoderLayer(6, 2, 8, dropout=0.0, batch_first=True),
        TOKENS,
    ),
    "lstm": (lambda: nn.LSTM(6, 3, 2, batch_first=True, bidirectional=True), TOKENS),
    "lstm, states": (lambda: states(nn.LSTM(6, 3, batch_first=True)), TOKENS),
    "gru, states": (lambda: states(nn.GRU(6, 3, batch_first=True)), TOKENS),
    "latents": (
        lambda: Own(lambda m, x: m.b(x + m.a(x)[:, 0]), a=Latents(1, 6, scale=1), b=linear()),
        VECTORS,
    ),
}  # fmt: skip
WORDS: dict[str, Callable[[], nn.Module]] = {
    "embedding": lambda: nn.Sequential(nn.Embedding(9, 6, padding_idx=1), linear()),
    "embedding bag": lambda: nn.Sequential(nn.EmbeddingBag(9, 6, mode="mean"), linear()),
    "tied embedding": tied,
}


@pytest.mark.parametrize("case", [*GOOD, *WORDS])
def test_the_clipped_sum_is_that_of_a_loop_over_the_rows(case: str):
    """It holds for all layers and paddings, whether a layer is used once, twice or tied."""
    torch.manual_seed(0)
    build, shape = GOOD[case] if case in GOOD else (WORDS[case], ())
    model, x = build(), inputs(shape, words=case in WORDS)
    wanted, found = by_loop(model, x), clipped(model, x)
    largest = max(float(v.abs().max()) for v in wanted.values())
    for name, value in wanted.items():
        assert float((found[name] - value).abs().max()) <= 1e-5 * largest, name


class Remembers(nn.Module):
    """A module that keeps a moving mean of its inputs, as a buffer or as a plain attribute."""

    def __init__(self, buffer: bool) -> None:
        super().__init__()
        self.layer = linear()
        if buffer:
            self.register_buffer("mean", torch.zeros(6))
        else:
            self.mean = torch.zeros(6)

    def forward(self, x: Tensor) -> Tensor:
        self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)
        return self.layer(x)


class Scaled(nn.Module):
    """A module that owns a parameter itself."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.scale = linear(), nn.Parameter(torch.ones(6))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) * self.scale


def with_hook() -> nn.Module:
    model = nn.Sequential(linear(), linear())
    model[0].register_forward_hook(lambda module, given, answer: answer - answer.mean(0))
    return model


def conv_and(norm: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 2, 3), norm, nn.Conv2d(2, 3, 3))


MIXES = "lets the rows of a batch see each other"
BAD: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], str]] = {
    "batch norm": (lambda: conv_and(nn.BatchNorm2d(2)), IMAGES, r"1 \(BatchNorm2d\).*GroupNorm"),
    "batch norm, no parameters": (
        lambda: conv_and(nn.BatchNorm2d(2, affine=False)), IMAGES, r"BatchNorm2d.*whole batch"),
    "batch norm, no statistics": (
        lambda: conv_and(nn.BatchNorm2d(2, affine=False, track_running_stats=False)),
        IMAGES, "BatchNorm2d"),
    "batch norm, frozen": (
        lambda: conv_and(nn.BatchNorm2d(2).requires_grad_(False)), IMAGES, "where it is frozen"),
    "batch norm, lazy": (
        lambda: conv_and(nn.LazyBatchNorm2d(affine=False)), IMAGES, "LazyBatchNorm2d"),
    "sync batch norm": (
        lambda: conv_and(nn.SyncBatchNorm(2, affine=False)), IMAGES, "SyncBatchNorm"),
    "instance norm with statistics": (
        lambda: conv_and(nn.InstanceNorm2d(2, track_running_stats=True)),
        IMAGES, "InstanceNorm2d.*without running statistics"),
    "softmax over the batch": (
        lambda: nn.Sequential(linear(), nn.Softmax(0)), VECTORS, r"1 \(Softmax\).*first axis"),
    "softmax over the batch, from behind": (
        lambda: nn.Sequential(linear(), nn.Softmax(-2)), VECTORS, MIXES),
    "mean over the batch": (
        lambda: Own(lambda m, x: m.a(x - x.mean(0)), a=linear()), VECTORS, rf"Own\) {MIXES}"),
    "constant mean over the batch": (
        lambda: Own(lambda m, x: m.a(x) - m.a(x).mean(0).detach(), a=linear()), VECTORS, MIXES),
    "a thousandth of the others": (
        lambda: Own(lambda m, x: m.a(x + 1e-3 * x.mean(0)), a=linear()), VECTORS, MIXES),
    "rows that move": (
        lambda: Own(lambda m, x: m.a(x).roll(1, 0), a=linear()), VECTORS, MIXES),
    "sums over the rows before": (
        lambda: Own(lambda m, x: m.a(x).cumsum(0), a=linear()), VECTORS, MIXES),
    "mixing before a layer of zeros": (
        lambda: nn.Sequential(Own(lambda m, x: x - x.mean(0)), nn.Linear(6, 6).requires_grad_(False)
                              .apply(lambda m: nn.init.zeros_(m.weight)), linear()),
        VECTORS, MIXES),
    "a hook that mixes": (with_hook, VECTORS, MIXES),
    "attention, time first": (
        lambda: Own(lambda m, x: m.a(x, x, x)[0], a=attention()), TOKENS, "batch_first=True"),
    "transformer, time first": (
        lambda: nn.TransformerEncoderLayer(6, 2, 8), TOKENS, "self_attn.*batch_first=True"),
    "lstm, time first": (lambda: nn.LSTM(6, 3), TOKENS, "batch_first=True"),
    "axes swapped": (
        lambda: Own(lambda m, x: m.a(x.transpose(0, 1)).transpose(0, 1), a=linear()),
        TOKENS, "a loop over the rows contradicts"),
    "mixing behind layers that begin at zero": (
        lambda: Own(lambda m, x: m.a(x) + m.c(m.b(x - x.mean(0))),
                    a=linear(), b=zero(), c=zero()),
        VECTORS, "lets the rows of a batch see each other"),
    "parts of the batch": (
        lambda: Own(lambda m, x: torch.cat([m.a(part) for part in x.split(2)]), a=linear()),
        TOKENS, "call it with the whole batch"),
    "an initial state": (
        lambda: Own(lambda m, x: m.a(x, torch.zeros(1, len(x), 3))[0],
                    a=nn.GRU(6, 3, batch_first=True)),
        TOKENS, "leave it out, it is zero"),
    "weight norm": (
        lambda: nn.Sequential(parametrizations.weight_norm(linear())), VECTORS, "parametrization"),
    "spectral norm by hooks": (
        lambda: nn.Sequential(nn.utils.spectral_norm(linear())), VECTORS, "spectral normalisation"),
    "moving mean in a buffer": (lambda: Remembers(True), VECTORS, "Remembers.*changes mean"),
    "moving mean in an attribute": (lambda: Remembers(False), VECTORS, "changes mean"),
    "observer": (
        lambda: nn.Sequential(linear(), torch.ao.quantization.FakeQuantize()),
        VECTORS, "FakeQuantize.*not on the list"),
    "a loss that reduces": (
        lambda: Own(lambda m, x: m.a(x), a=linear(), loss=nn.MSELoss()),
        VECTORS, "reduction='none'"),
    "weight of a linear layer used by itself": (
        lambda: Own(lambda m, x: F.linear(m.a(x), m.a.weight), a=linear()),
        VECTORS, "a.weight is used outside its layer"),
    "parameter of its own": (Scaled, VECTORS, r"Scaled\) owns parameters .*Latents"),
    "own forward of a layer": (
        lambda: nn.Sequential(patched(linear())), VECTORS, "has a forward of its own"),
    "scalar beside the rows": (
        lambda: Own(lambda m, x: (m.a(x), m.a(x).mean()), a=linear()),
        VECTORS, "every tensor must have one row an example"),
}  # fmt: skip
BAD_WORDS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "rows shortened in place": (lambda: nn.Embedding(9, 6, max_norm=1.0), "leave max_norm out"),
    "counts over the batch": (lambda: nn.Embedding(9, 6, scale_grad_by_freq=True), "counts over"),
    "sparse": (lambda: nn.EmbeddingBag(9, 6, sparse=True), "sparse=False"),
    "table used by itself": (
        lambda: Own(lambda m, x: F.linear(m.a(x).tanh(), m.a.weight), a=nn.Embedding(9, 6)),
        "a.weight is used outside its layer",
    ),
}


def patched(layer: nn.Module) -> nn.Module:
    layer.forward = lambda x: x - x.mean(0)  # type: ignore[method-assign]
    return layer


@pytest.mark.parametrize("case", [*BAD, *BAD_WORDS])
def test_what_mixes_examples_or_remembers_them_is_refused(case: str):
    """The refusal comes before anything is released and names the module and the remedy."""
    torch.manual_seed(0)
    if case in BAD:
        build, shape, sentence = BAD[case]
        model, x = build(), inputs(shape)
    else:
        words, sentence = BAD_WORDS[case]
        model, x = words(), inputs((), words=True)
    with pytest.raises(EngineError, match=sentence):
        clipped(model, x)


def test_a_loss_that_sees_other_rows_is_refused():
    """Here the model keeps rows apart and the objective does not."""

    def centred(answer: Tensor) -> Tensor:
        return squares(answer - answer.mean(0))

    with pytest.raises(EngineError, match="the loss of one row depends on"):
        clipped(nn.Sequential(linear()), inputs(VECTORS), centred)


@pytest.mark.parametrize("neighbour", [1, -1])
def test_a_loss_that_sees_the_row_before_or_after_alone_is_refused(neighbour: int):
    """The first row has none before it and the last none after it, so both are looked at."""

    def chained(answer: Tensor) -> Tensor:
        own = squares(answer)
        others = torch.zeros_like(own)
        if neighbour == 1:
            others[:-1] = own[1:]
        else:
            others[1:] = own[:-1]
        return own + others

    with pytest.raises(EngineError, match="the loss of one row depends on"):
        clipped(nn.Sequential(linear()), inputs(VECTORS), chained)


@pytest.mark.parametrize("kept", ["weight", "seen"])
def test_what_is_written_to_after_the_first_step_is_refused_then(kept: str):
    """Code may change a parameter or a buffer later, when no copy of the model is run any more."""
    later: list[bool] = []

    def forward(module: nn.Module, x: Tensor) -> Tensor:
        layer = module.get_submodule("a")
        if later:
            with torch.no_grad():
                getattr(layer if kept == "weight" else module, kept).add_(x.mean())
        return layer(x.tanh())

    model, x = Own(forward, a=linear()), inputs(VECTORS)
    model.register_buffer("seen", torch.zeros(1))
    groups = [ClipGroup(("a.weight", "a.bias"), PLAN.max_grad_norm)]
    optimizer = torch.optim.SGD([model.a.weight, model.a.bias], lr=1.0)
    valid = torch.ones(len(x)).bool()
    with DpEngine(model, PLAN, groups, optimizer, SeededNoise(1)) as engine:
        engine.step(lambda rows: squares(model(x[rows])), valid)
        later.append(True)
        with pytest.raises(EngineError, match=f"{kept} changes while it is trained"):
            engine.step(lambda rows: squares(model(x[rows])), valid)


def test_a_class_whose_methods_do_the_work_is_refused():
    """Methods other than forward cannot be checked."""
    model = Own(lambda m, x: m.a(x), a=linear())
    x = inputs(VECTORS)
    groups = [ClipGroup(("a.weight", "a.bias"), PLAN.max_grad_norm)]
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    with (
        DpEngine(model, PLAN, groups, optimizer, SeededNoise(1)) as engine,
        pytest.raises(EngineError, match=r"the model \(Own\) is never called itself"),
    ):
        engine.step(lambda rows: squares(model.a(x[rows])), torch.ones(len(x)).bool())


def test_what_is_refused_does_not_depend_on_a_record():
    """A module that reads values of its batch is run on random ones, so records of NaN, zeros or
    huge values pass or fail as any others do."""
    seen = []

    def look(module: nn.Module, x: Tensor) -> Tensor:
        seen.append(x.detach().clone())
        return module.get_submodule("a")(x)

    checked = []
    for record in (0.0, 1e30, float("nan")):
        seen.clear()
        torch.manual_seed(0)
        clipped(Own(look, a=linear()), torch.full((COUNT, *VECTORS), record))
        assert torch.equal(seen[-1], torch.full_like(seen[-1], record)) or record != record
        checked.append(torch.cat([x.flatten() for x in seen[:-1]]))
    assert len(checked[0]) > 0
    assert all(torch.equal(one, checked[0]) for one in checked)


def test_the_check_leaves_the_randomness_of_training_alone():
    """The check also leaves parameters, gradients and hooks as they were."""
    torch.manual_seed(0)
    model = Own(lambda m, x: m.b(m.a(x)), a=linear(), b=nn.Dropout(0.5))
    before = copy.deepcopy(model.state_dict())
    torch.manual_seed(7)
    clipped(model, inputs(VECTORS))
    drawn = torch.rand(3)
    torch.manual_seed(7)
    model(inputs(VECTORS))
    assert torch.equal(drawn, torch.rand(3))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not model._forward_hooks
    assert not model._forward_pre_hooks
    assert "forward" not in vars(model.a)


def test_a_model_is_checked_once():
    """The check runs at the first step, and later steps cost nothing more."""
    calls = []

    def count(module: nn.Module, x: Tensor) -> Tensor:
        calls.append(len(x))
        return module.get_submodule("a")(x)

    model, x = Own(count, a=linear()), inputs(VECTORS)
    groups = [ClipGroup(("a.weight", "a.bias"), PLAN.max_grad_norm)]
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    with DpEngine(model, PLAN, groups, optimizer, SeededNoise(1)) as engine:
        for _ in range(3):
            engine.step(lambda rows: squares(model(x[rows])), torch.ones(len(x)).bool())
            calls.append(0)
    assert calls[-4:] == [0, COUNT, 0, COUNT, 0][-4:]
    assert calls.index(0) < 60


def test_the_lists_hold_what_there_are_rules_for():
    """A rule for a layer that is not on the list would leave its parameters' names unchecked."""
    assert {kind for kind in RULES if kind is not Latents} == set(modules.BOOKED)
    listed = [*modules.BOOKED, *modules.GUESTS, *modules.PLAIN, *modules.AXIS]
    assert len(listed) == len(set(listed))


def test_a_hook_on_a_layer_of_this_projects_model_is_looked_at(model: Medformer):
    """The model itself is not run on random rows, but foreign code hooked onto it is."""
    assert not list(modules.to_be_run(model))
    layer = next(module for module in model.modules() if type(module) is nn.Linear)
    layer.register_forward_hook(lambda *_: None)
    assert [module for _, module in modules.to_be_run(model)] == [layer]
