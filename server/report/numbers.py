"""How delta is written in the report; epsilon: `medformer.common.rounding`."""

from decimal import ROUND_CEILING, Decimal

from markupsafe import Markup

from medformer.common.rounding import rounded_down
from medformer.common.rounding import rounded_up as rounded_up
from server.protocol.receipt import Column


def cell(value: str | float, column: Column) -> str:
    """Return a field of a receipt's phase as its column shows it."""
    if isinstance(value, str):
        return value
    return rounded_down(value) if column.format == "down" else format(value, column.format)


def scientific(value: float) -> Markup:
    """Two significant digits, never less than the value: 0.00001 -> 1 x 10^-5, as HTML."""
    if value == 0:
        return Markup("0")
    exact = Decimal(repr(value))
    exponent = exact.adjusted()
    digits = exact.scaleb(-exponent).quantize(Decimal("0.1"), ROUND_CEILING).normalize()
    if digits == 10:
        digits, exponent = Decimal(1), exponent + 1
    return Markup("{}&nbsp;&times;&nbsp;10<sup>{}</sup>").format(f"{digits:f}", exponent)
