"""Float matrices that are ternary already, ``w * s``: their scales, by the bits that are stored.

No tolerance: a weight is 0 or has exactly the magnitude of its group, or the matrix is not ternary.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bitinfer import _core
from bitinfer.formats.safetensors import as_float32

_CHUNK_WEIGHTS = 1 << 20  # looked at together; bounds the memory


def group_scales(
    data: NDArray[np.uint8], dtype: str, n: int, k: int, group: int
) -> NDArray[np.uint8] | None:
    """The scale of each row in each group of columns; the last group may be narrower.

    Args:
        data: The bytes of the matrix ``(n, k)``, row-major.
        dtype: F32, F16 or BF16.
        n, k: Its shape.
        group: Columns of a group.

    Returns:
        The bytes of ``(groups, n)`` of that dtype, 0 where a group is all zero; None where weights
        of a group have different magnitudes.
    """
    scales, bad = _core.group_magnitudes(data, dtype.lower(), n, k, group)
    return scales if bad < 0 else None


def has_zero(data: NDArray[np.uint8], dtype: str) -> bool:
    """Whether a weight is 0; the arguments are as in ``group_scales``."""
    bits = data.view("<u4" if dtype == "F32" else "<u2")
    magnitude = bits.dtype.type(np.iinfo(bits.dtype).max >> 1)
    return any(
        not (bits[at : at + _CHUNK_WEIGHTS] & magnitude).all()
        for at in range(0, len(bits), _CHUNK_WEIGHTS)
    )


def one_scale(data: NDArray[np.uint8], dtype: str, n: int, k: int) -> np.float32 | None:
    """The scale of all weights of a matrix, 0 if it is all zero; None: there is not one."""
    rows = group_scales(data, dtype, n, k, k)
    if rows is None:
        return None
    values = as_float32(rows, dtype)
    scale = values.max()
    return scale if ((values == scale) | (values == 0)).all() else None
