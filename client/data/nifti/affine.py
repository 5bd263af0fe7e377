"""Which of a NIfTI header's statements says where its voxels lie: sform, qform or pixdim."""

from typing import Any

import numpy as np

from client.data.errors import Unusable
from client.data.geometry.orientation import Array, Grid, grid_of, same_way

MILLIMETRES = {1: 1_000.0, 2: 1.0, 3: 0.001}
"""Code of the unit of length (metre, millimetre, micron) -> its millimetres."""
SCANNER = (1, 2)
"""Codes of affines to the scanner's coordinates, or to another scan of the patient; others lead to
an atlas, and stretch the head to its size."""
DIFFER = 1e-2
"""Part by which two statements of a voxel's size may differ without a word."""
OTHER_SIZES = "have voxels of other sizes by their {} than by their sform, which counts"
LPS = np.diag([-1.0, -1.0, 1.0])
"""From NIfTI's axes (right, front, head) to DICOM's (left, back, head)."""


def affine_of(header: Any) -> tuple[Grid | None, tuple[str, ...]]:
    """Grid of the axes (K, J, I) of a file, and what is to be said of it.

    The sform counts more than the qform, as in nibabel, unless it alone leads to an atlas. pixdim
    counts nothing beside an sform.

    Returns:
        None where there is neither.
    Raises:
        Unusable: The one that counts is impossible, or they contradict each other in which way the
            axes run.
    """
    scale = _scale(header)
    sform, s_code = header.get_sform(coded=True)
    qform, q_code = _qform(header, needed=sform is None)
    if sform is None:
        return (None if qform is None else _grid(qform, scale)), ()
    grid = _grid(sform, scale)
    if qform is None:
        return grid, _sizes_said(header, grid, scale)
    other = _grid(qform, scale)
    if not same_way(grid, other):
        raise Unusable(
            "its qform and its sform say that it lies in two different ways: find out which is "
            "right, and set the code of the other to 0"
        )
    if s_code not in SCANNER and q_code in SCANNER:
        return other, ()
    if not np.allclose(grid.spacing, other.spacing, rtol=DIFFER):
        return grid, (OTHER_SIZES.format("qform"),)
    return grid, ()


def sizes_of(header: Any) -> Array:
    """(3,) millimetres along the axes (K, J, I), by pixdim."""
    sizes = np.abs(np.array(header["pixdim"][1:4], np.float64)) * _scale(header)
    if not (np.isfinite(sizes).all() and (sizes > 0).all()):
        raise Unusable(f"its voxels have the impossible size {sizes.tolist()}")
    return sizes[::-1]


def _scale(header: Any) -> float:
    return MILLIMETRES.get(int(header["xyzt_units"]) % 8, 1.0)


def _qform(header: Any, needed: bool) -> tuple[Array | None, int]:
    from nibabel.spatialimages import HeaderDataError

    try:
        qform, code = header.get_qform(coded=True)
    except (HeaderDataError, ValueError) as error:
        if needed:
            raise Unusable(f"its qform is impossible ({error})") from error
        return None, 0
    return qform, code


def _grid(affine: Array, scale: float) -> Grid:
    lps = scale * LPS @ affine[:3]
    return grid_of(lps[:, 3], lps[:, 2::-1].T)


def _sizes_said(header: Any, grid: Grid, scale: float) -> tuple[str, ...]:
    sizes = np.abs(np.array(header["pixdim"][3:0:-1], np.float64)) * scale
    if np.allclose(sizes, grid.spacing, rtol=DIFFER):
        return ()
    return (OTHER_SIZES.format("pixdim"),)
