"""The part of an irregularity that rounding explains.

DICOM writes positions as decimal text of at most 16 characters (Decimal String, PS3.5, 6.2), so
that even a regular stack lies off its grid by half a unit of the last decimal. F slices.
"""

from decimal import Decimal

import numpy as np

from client.data.geometry.orientation import Array

MAX_ROUGHNESS = 1e-2
"""Maximum radians that the rounding of direction cosines may explain."""


def slack(written: Array, cosines: Array, depths: Array, rounding: float) -> Array:
    """Return (F,) millimetres within its plane by which rounding may have moved each slice.

    Args:
        written: (F, 3) positions in millimetres, in order.
        cosines: (F, 6) direction cosines.
        depths: (F,) millimetres along the normal, in order.
        rounding: Millimetres that the rounding of positions may explain.
    """
    # Positions that lie on one line were not rounded off it, however few decimals they have.
    residual = np.abs(off_line(np.arange(len(written)), written)).max()
    allowed: Array = min(rounding, 2 * residual) + roughness(cosines) * np.abs(
        depths - depths.mean()
    )
    return allowed


def off_line(x: Array, y: Array) -> Array:
    """Return the residual of y beside a straight line over x, by least squares.

    Args:
        x: (F,).
        y: (F, ...).
    Returns:
        (F, ...).
    """
    begin, slope = np.polynomial.polynomial.polyfit(x, y, 1)
    left: Array = y - begin - x[:, None] * slope
    return left


def half_unit(written: Array) -> float:
    """Return half a unit of the last decimal with which any of the numbers is written.

    Args:
        written: Numbers of any shape.
    """
    return float(0.5 * 10.0 ** -max(map(_decimals, written.ravel().tolist())))


def roughness(cosines: Array) -> float:
    """Return the radians by which rounded direction cosines may be off; whole numbers are exact.

    Args:
        cosines: (F, 6) as written.
    """
    numbers = [value for value in cosines.ravel().tolist() if value % 1]
    if not numbers:
        return 0.0
    return float(min(MAX_ROUGHNESS, np.sqrt(3) * 0.5 * 10.0 ** -max(map(_decimals, numbers))))


def _decimals(value: float) -> int:
    """Count the decimals of a number as a file may have written it; trailing zeros are lost."""
    exponent = Decimal(str(value)).normalize().as_tuple().exponent
    return max(0, -int(exponent))
