"""Lists of the modules that a model may consist of when every example is clipped by itself.

A module of torch is allowed if it treats each example (the first axis of a batch) alone and keeps
no state; modules that later versions of torch add are refused until a maintainer has read them. A
user's own class is allowed if it owns no trained parameter, and is run on random inputs before the
first step (client/privacy/models/alone.py). The modules of this project have tests instead.
"""

from collections.abc import Iterator

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.loss import _Loss
from torch.nn.modules.rnn import RNNBase
from torch.nn.utils import parametrize

from client.privacy.per_example import EngineError

OURS = ("medformer", "client")
"""Packages whose modules are compared with a loop over the rows by tests."""

BOOKED: dict[type[nn.Module], frozenset[str]] = {
    nn.Linear: frozenset({"weight", "bias"}),
    nn.Conv1d: frozenset({"weight", "bias"}),
    nn.Conv2d: frozenset({"weight", "bias"}),
    nn.Conv3d: frozenset({"weight", "bias"}),
    nn.LayerNorm: frozenset({"weight", "bias"}),
    nn.GroupNorm: frozenset({"weight", "bias"}),
}
"""Layers with a rule in client/privacy/layer_rules.py, and their parameters."""

GUESTS: tuple[type[nn.Module], ...] = (
    nn.Embedding, nn.EmbeddingBag, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
    nn.Bilinear, nn.PReLU, nn.RMSNorm, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d,
    nn.RNN, nn.GRU, nn.LSTM, nn.RNNCell, nn.GRUCell, nn.LSTMCell, nn.MultiheadAttention,
)  # fmt: skip
"""Layers without a rule that are run row by row (client/privacy/models/guests.py)."""

PLAIN: tuple[type[nn.Module], ...] = (
    nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict, nn.Identity,
    nn.CELU, nn.ELU, nn.GELU, nn.Hardshrink, nn.Hardsigmoid, nn.Hardswish, nn.Hardtanh,
    nn.LeakyReLU, nn.LogSigmoid, nn.Mish, nn.RReLU, nn.ReLU, nn.ReLU6, nn.SELU, nn.SiLU,
    nn.Sigmoid, nn.Softmax2d, nn.Softplus, nn.Softshrink, nn.Softsign, nn.Tanh, nn.Tanhshrink,
    nn.Threshold, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout,
    nn.FeatureAlphaDropout, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d,
    nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d, nn.AvgPool1d, nn.AvgPool2d,
    nn.AvgPool3d, nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.LPPool1d, nn.LPPool2d, nn.LPPool3d,
    nn.FractionalMaxPool2d, nn.FractionalMaxPool3d, nn.MaxUnpool1d, nn.MaxUnpool2d, nn.MaxUnpool3d,
    nn.CircularPad1d, nn.CircularPad2d, nn.CircularPad3d, nn.ConstantPad1d, nn.ConstantPad2d,
    nn.ConstantPad3d, nn.ReflectionPad1d, nn.ReflectionPad2d, nn.ReflectionPad3d,
    nn.ReplicationPad1d, nn.ReplicationPad2d, nn.ReplicationPad3d, nn.ZeroPad1d, nn.ZeroPad2d,
    nn.ZeroPad3d, nn.ChannelShuffle, nn.Fold, nn.Unfold, nn.LocalResponseNorm, nn.PairwiseDistance,
    nn.PixelShuffle, nn.PixelUnshuffle, nn.Upsample, nn.UpsamplingBilinear2d,
    nn.UpsamplingNearest2d, nn.TransformerEncoderLayer, nn.TransformerEncoder,
    nn.TransformerDecoderLayer, nn.TransformerDecoder, nn.Transformer,
)  # fmt: skip
"""Modules of torch that own no parameter and treat each example alone, whatever their settings."""

AXIS: dict[type[nn.Module], str] = {
    nn.Softmax: "dim",
    nn.LogSoftmax: "dim",
    nn.Softmin: "dim",
    nn.GLU: "dim",
    nn.CosineSimilarity: "dim",
    nn.Flatten: "start_dim",
    nn.Unflatten: "dim",
}
"""Modules that treat each example alone unless this setting names the first axis."""


def check_modules(model: nn.Module) -> None:
    """Refuse a model that holds a module of torch that is not on the lists.

    Frozen modules count too: batch statistics of a frozen layer still mix the examples.

    Args:
        model: Its modules are looked at, none is run.
    Raises:
        EngineError: Names the module, the reason and the remedy.
    """
    # Prefixes of layers that are judged with all their parts.
    inside: list[str] = []
    for name, module in model.named_modules():
        if any(name.startswith(guest) for guest in inside):
            continue
        if reason := _reason(module):
            raise EngineError(
                f"this model cannot be trained per example: {called(name, module)} {reason}"
            )
        if type(module) in GUESTS:
            inside.append(f"{name}." if name else "")


def called(name: str, module: nn.Module) -> str:
    """Return a module's name for messages: its place in the model and its class.

    Args:
        name: Place in the model, as `named_modules` gives it; empty for the model itself.
        module: The module.
    """
    return f"{name or 'the model'} ({type(module).__name__})"


def to_be_run(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules that are to be run on random inputs, with their names.

    These are the modules whose code is the user's own, and the model itself unless it is this
    project's or a single layer that is run row by row.

    Args:
        model: The model that is about to be trained.
    """
    known = _is_ours(model) or type(model) in GUESTS
    for name, module in model.named_modules():
        if is_own(module) or (module is model and not known):
            yield name, module


def is_own(module: nn.Module) -> bool:
    """Tell whether a module runs code that belongs neither to torch nor to this project.

    Args:
        module: The module; code that is hooked onto it counts as its own.
    """
    hooked = module._forward_hooks or module._forward_pre_hooks
    return bool(hooked) or not (_is_listed(module) or _is_ours(module))


def _is_listed(module: nn.Module) -> bool:
    listed = (*BOOKED, *GUESTS, *PLAIN, *AXIS)
    return type(module) in listed or (isinstance(module, _Loss) and _of_torch(module))


def _is_ours(module: nn.Module) -> bool:
    return type(module).__module__.split(".")[0] in OURS


def _of_torch(module: nn.Module) -> bool:
    return type(module).__module__.split(".")[0] == "torch"


def _reason(module: nn.Module) -> str | None:
    """Return why a module is refused, with the remedy; None if it is allowed."""
    # InstanceNorm is a subclass of _NormBase too, and is harmless without running statistics.
    if isinstance(module, _NormBase) and (type(module) not in GUESTS or module.track_running_stats):
        return (
            "normalises with statistics of the whole batch, or keeps them: use GroupNorm, "
            "LayerNorm, or InstanceNorm without running statistics, also where it is frozen"
        )
    if parametrize.is_parametrized(module):
        return "computes its weights from others (a parametrization): remove it before training"
    if _is_ours(module):
        return None
    if not _of_torch(module):
        # A user's own class is run before the first step; the book refuses what it owns.
        return None
    # The list names what was read: a new module of torch may do anything.
    if not _is_listed(module):
        return (
            "is not on the list of torch's modules that treat each example alone "
            "(client/privacy/models/modules.py): replace it, or write what it does in a module "
            "of your own"
        )
    # A function assigned to one instance would run in place of the code that was read.
    if "forward" in vars(module):
        return "has a forward of its own: make a class of it"
    # torch's normalisation utilities add parameters and buffers from which a weight is computed.
    if (known := BOOKED.get(type(module))) is not None:
        names = {name for name, _ in module.named_parameters(recurse=False)}
        if names - known or any(True for _ in module.buffers(recurse=False)):
            return (
                "computes its weights from others (weight or spectral normalisation): remove it "
                "before training"
            )
    if (setting := AXIS.get(type(module))) and getattr(module, setting) in (0, None):
        return f"works along the first axis, that of the examples: set another {setting}"
    if isinstance(module, _Loss) and module.reduction != "none":
        return "reduces over the batch: losses are one value an example, so set reduction='none'"
    return _reason_of_guest(module) if type(module) in GUESTS else None


def _reason_of_guest(layer: nn.Module) -> str | None:
    """Return why a layer that would run row by row is refused; None if it is allowed."""
    # Hooks would run once a row, and see rows that they take for batches.
    if layer._forward_hooks or layer._forward_pre_hooks:
        return "has hooks, and is run row by row: put the hooks on the module around it"
    if isinstance(layer, nn.Embedding | nn.EmbeddingBag):
        if layer.max_norm is not None:
            return "shortens the rows that a batch looks up, without noise: leave max_norm out"
        if layer.scale_grad_by_freq:
            return "divides gradients by counts over the batch: leave scale_grad_by_freq out"
        if layer.sparse:
            return "has sparse gradients, which get no noise where they are empty: sparse=False"
    if isinstance(layer, nn.EmbeddingBag) and layer.include_last_offset:
        return "takes offsets into one row for all examples: give it (B, T) indices"
    if isinstance(layer, RNNBase | nn.MultiheadAttention) and not layer.batch_first:
        return "takes the first axis for time: set batch_first=True"
    return None
