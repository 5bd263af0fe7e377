"""The grid of a NIfTI file: sform, qform and pixdim, and which of them counts where they differ."""

from typing import Any

import numpy as np

from client.data.errors import Unusable
from client.data.geometry.orientation import Array, Grid, grid_of, same_way

MILLIMETRES = {1: 1_000.0, 2: 1.0, 3: 0.001}
"""Code of the unit of length (metre, millimetre, micron) -> its millimetres."""
SCANNER = (1, 2)
"""Codes of affines to the scanner's coordinates, or to another scan of the patient. Others lead to
an atlas, and stretch the head to its size."""
SIZE_TOLERANCE = 1e-2
"""Share by which two statements of a voxel's size may differ without a remark."""
OTHER_SIZES = "state other voxel sizes in their {} than in their sform, which is used"
LPS = np.diag([-1.0, -1.0, 1.0])
"""Change from NIfTI's axes (right, front, head) to DICOM's (left, back, head)."""


def affine_of(header: Any) -> tuple[Grid | None, tuple[str, ...]]:
    """Return the grid of the axes (K, J, I) of a file, and remarks about it.

    The sform has priority over the qform, as in nibabel, unless it alone leads to an atlas. pixdim
    is ignored beside an sform.

    Args:
        header: nibabel's header.
    Returns:
        The grid, None where the file has neither; remarks for people.
    Raises:
        Unusable: The transform that counts is impossible, or both contradict each other in the
            direction of the axes.
    """
    scale = _scale(header)
    sform, s_code = header.get_sform(coded=True)
    qform, q_code = _qform(header, needed=sform is None)
    if sform is None:
        return (None if qform is None else _grid(qform, scale)), ()
    grid = _grid(sform, scale)
    # Only the sform exists; pixdim can still contradict it.
    if qform is None:
        return grid, _sizes_said(header, grid, scale)
    other = _grid(qform, scale)
    # A mirrored image would swap left and right, and nothing downstream would notice.
    if not same_way(grid, other):
        raise Unusable(
            "its qform and its sform state two different orientations: find out which is right, "
            "and set the code of the other to 0"
        )
    # An sform to an atlas would give the template's sizes; the scanner's qform keeps the patient's.
    if s_code not in SCANNER and q_code in SCANNER:
        return other, ()
    if not np.allclose(grid.spacing, other.spacing, rtol=SIZE_TOLERANCE):
        return grid, (OTHER_SIZES.format("qform"),)
    return grid, ()


def sizes_of(header: Any) -> Array:
    """Return (3,) millimetres along the axes (K, J, I), by pixdim.

    Args:
        header: nibabel's header.
    Raises:
        Unusable: A size is not a positive number.
    """
    sizes = np.abs(np.array(header["pixdim"][1:4], np.float64)) * _scale(header)
    if not (np.isfinite(sizes).all() and (sizes > 0).all()):
        raise Unusable(f"its voxels have the impossible size {sizes.tolist()}")
    return sizes[::-1]


def _scale(header: Any) -> float:
    """Return the millimetres of the header's unit of length; an unknown unit counts as
    millimetres."""
    return MILLIMETRES.get(int(header["xyzt_units"]) % 8, 1.0)


def _qform(header: Any, needed: bool) -> tuple[Array | None, int]:
    """Return the qform and its code; an impossible one raises only if it is needed."""
    from nibabel.spatialimages import HeaderDataError

    try:
        qform, code = header.get_qform(coded=True)
    except (HeaderDataError, ValueError) as error:
        if needed:
            raise Unusable(f"its qform is impossible ({error})") from error
        return None, 0
    return qform, code


def _grid(affine: Array, scale: float) -> Grid:
    """Convert an affine to a grid in DICOM's coordinates, axes from last to first."""
    # Columns I, J, K become rows K, J, I: arrays are read from the last axis to the first.
    lps = scale * LPS @ affine[:3]
    return grid_of(lps[:, 3], lps[:, 2::-1].T)


def _sizes_said(header: Any, grid: Grid, scale: float) -> tuple[str, ...]:
    """Return a remark if pixdim contradicts the sform."""
    sizes = np.abs(np.array(header["pixdim"][3:0:-1], np.float64)) * scale
    if np.allclose(sizes, grid.spacing, rtol=SIZE_TOLERANCE):
        return ()
    return (OTHER_SIZES.format("pixdim"),)
