"""Numbers as the report shows them; `medformer.common.rounding` rounds epsilons."""

from decimal import ROUND_CEILING, Decimal

from markupsafe import Markup

from medformer.common.rounding import rounded_down
from medformer.common.rounding import rounded_up as rounded_up
from server.protocol.receipt import Column


def cell(value: str | float, column: Column) -> str:
    """Return a field of a receipt's phase as its column shows it.

    Args:
        value: The field's value.
        column: Its format.
    """
    if isinstance(value, str):
        return value
    return rounded_down(value) if column.format == "down" else format(value, column.format)


def scientific(value: float) -> Markup:
    """Return a delta as HTML with two significant digits: 0.00001 -> 1 x 10^-5.

    Args:
        value: A number >= 0. It is rounded up, so that no shown guarantee is stronger than the
            computed one.
    """
    if value == 0:
        return Markup("0")
    # Twelve digits, as everywhere: three deltas of 1e-05 sum to 3e-05, and not a little more.
    exact = Decimal(f"{value:.12g}")
    exponent = exact.adjusted()
    digits = exact.scaleb(-exponent).quantize(Decimal("0.1"), ROUND_CEILING).normalize()
    # 9.96 was rounded up to 10.
    if digits == 10:
        digits, exponent = Decimal(1), exponent + 1
    return Markup("{}&nbsp;&times;&nbsp;10<sup>{}</sup>").format(f"{digits:f}", exponent)
