"""The clipped sum inside a DP engine, which the engine itself never shows."""

from torch import Tensor, nn

from client.privacy.engine import DpEngine


def clipped_sum_of(engine: DpEngine, model: nn.Module) -> dict[str, Tensor]:
    """Return the sum that the noise would be added to, by name, after `engine.accumulate`.

    Args:
        engine: It has accumulated one batch and taken no step since.
        model: The model that it trains.
    """
    optimizer = engine.optimizer
    optimizer.accumulate()
    sums = {id(p): total for p, total in optimizer.by_parameter(optimizer.total())}
    optimizer.zero_grad(set_to_none=True)
    return {name: sums[id(p)] for name, p in model.named_parameters() if id(p) in sums}
