"""Rounds epsilons, deltas and remaining budgets so that no printed number promises too much.

The cost of a run is rounded up and the rest of a budget down, in decimal arithmetic on the shortest
text of the number, so that 7.993 stays 7.993 and 7.9931 becomes 7.994.
"""

from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, localcontext

PLACES = 3
"""Decimals of an epsilon."""


def rounded_up(value: float, places: int = PLACES) -> str:
    """Write a cost with fixed decimals, never less than its value.

    >>> rounded_up(7.99312)
    '7.994'

    Args:
        value: Any number; infinite ones are written as they are.
        places: Decimals.
    """
    return _fixed(value, places, ROUND_CEILING)


def rounded_down(value: float, places: int = PLACES) -> str:
    """Write the rest of a budget with fixed decimals, never more than its value.

    >>> rounded_down(0.00688)
    '0.006'

    Args:
        value: Any number; infinite ones are written as they are.
        places: Decimals.
    """
    return _fixed(value, places, ROUND_FLOOR)


def digits_up(value: float, digits: int = 3) -> str:
    """Write a delta with significant digits, never less than its value.

    >>> digits_up(1.0100001e-05)
    '1.02e-05'

    Args:
        value: Any number.
        digits: Significant digits.
    """
    return _significant(value, digits, ROUND_CEILING)


def digits_down(value: float, digits: int = 3) -> str:
    """Write the unspent part of a delta with significant digits, never more than its value.

    >>> digits_down(1.0199999e-05)
    '1.01e-05'

    Args:
        value: Any number.
        digits: Significant digits.
    """
    return _significant(value, digits, ROUND_FLOOR)


def percent_up(share: float, places: int = 1) -> str:
    """Write the used share of a budget as a percentage, never less than it is.

    >>> percent_up(0.35011)
    '35.1 %'

    Args:
        share: 1 is the whole budget.
        places: Decimals.
    """
    return f"{_fixed(100 * _without_noise(share), places, ROUND_CEILING)} %"


def percent_down(share: float, places: int = 1) -> str:
    """Write the remaining share of a budget as a percentage, never more than it is.

    >>> percent_down(0.64989)
    '64.9 %'

    Args:
        share: 1 is the whole budget.
        places: Decimals.
    """
    return f"{_fixed(100 * _without_noise(share), places, ROUND_FLOOR)} %"


def exact(value: float) -> str:
    """Write a declared number with all its digits.

    >>> exact(8.0), exact(7.0000001)
    ('8', '7.0000001')
    """
    return repr(float(value)).removesuffix(".0")


def _fixed(value: float | Decimal, places: int, rounding: str) -> str:
    exact = value if isinstance(value, Decimal) else Decimal(repr(float(value)))
    if not exact.is_finite():
        return str(float(exact))
    with localcontext(prec=400):  # the default of 28 digits is too few for large floats
        return f"{exact.quantize(Decimal(1).scaleb(-places), rounding):f}"


def _without_noise(value: float) -> Decimal:
    """Keep twelve digits: three deltas of 1e-05 sum to 3e-05, not to 3.0000000000000004e-05."""
    return Decimal(f"{value:.12g}")


def _significant(value: float, digits: int, rounding: str) -> str:
    exact = _without_noise(value)
    if exact == 0 or not exact.is_finite():
        return f"{float(value):g}"
    step = Decimal(1).scaleb(exact.adjusted() - digits + 1)
    return f"{float(exact.quantize(step, rounding)):.{digits}g}"
