"""How epsilon and delta are written: rounded up, so that no shown guarantee is too strong."""

from decimal import ROUND_CEILING, Decimal

from markupsafe import Markup


def rounded_up(value: float) -> str:
    """Three decimals, never less than the value: 7.9971 -> 7.998."""
    return f"{Decimal(repr(value)).quantize(Decimal('0.001'), ROUND_CEILING):f}"


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
