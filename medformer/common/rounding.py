"""How epsilons, deltas and what is left of a budget are written: never in somebody's favour.

What a run costs is rounded up and what is left of a budget down, in decimal arithmetic on the
shortest text of the number, so that 7.993 stays 7.993 and 7.9931 becomes 7.994.
"""

from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, localcontext

PLACES = 3
"""Decimals of an epsilon."""


def rounded_up(value: float, places: int = PLACES) -> str:
    """Never less than the value: 7.99312 -> 7.994."""
    return _fixed(value, places, ROUND_CEILING)


def rounded_down(value: float, places: int = PLACES) -> str:
    """Never more than the value, for what is left of a budget: 0.00688 -> 0.006."""
    return _fixed(value, places, ROUND_FLOOR)


def digits_up(value: float, digits: int = 3) -> str:
    """Significant digits, never less than the value, for deltas: 1.01e-05 -> 1.1e-05."""
    return _significant(value, digits, ROUND_CEILING)


def digits_down(value: float, digits: int = 3) -> str:
    """Significant digits, never more than the value: 1.19e-05 -> 1.1e-05."""
    return _significant(value, digits, ROUND_FLOOR)


def percent_up(share: float, places: int = 1) -> str:
    """Never less than the share, for what is used of a budget: 0.35011 -> 35.1 %."""
    return f"{_fixed(100 * _without_noise(share), places, ROUND_CEILING)} %"


def percent_down(share: float, places: int = 1) -> str:
    """Never more than the share, for what is left of a budget: 0.64989 -> 64.9 %."""
    return f"{_fixed(100 * _without_noise(share), places, ROUND_FLOOR)} %"


def exact(value: float) -> str:
    """Every digit, for what somebody declared: 8.0 -> 8, 7.0000001 -> 7.0000001."""
    return repr(float(value)).removesuffix(".0")


def _fixed(value: float | Decimal, places: int, rounding: str) -> str:
    exact = value if isinstance(value, Decimal) else Decimal(repr(float(value)))
    if not exact.is_finite():
        return str(float(exact))
    with localcontext(prec=400):
        return f"{exact.quantize(Decimal(1).scaleb(-places), rounding):f}"


def _without_noise(value: float) -> Decimal:
    """Twelve digits: the sum of three deltas of 1e-05 is 3e-05, not 3.0000000000000004e-05."""
    return Decimal(f"{value:.12g}")


def _significant(value: float, digits: int, rounding: str) -> str:
    exact = _without_noise(value)
    if exact == 0 or not exact.is_finite():
        return f"{float(value):g}"
    step = Decimal(1).scaleb(exact.adjusted() - digits + 1)
    return f"{float(exact.quantize(step, rounding)):.{digits}g}"
