"""Types of the reference's arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I8 = NDArray[np.int8]
Tensor = tuple[NDArray[np.uint8], str, tuple[int, ...]]
"""(bytes, dtype "i8" | "bf16" | "f16" | "f32" or packing "i2" | "t3" | "t5" | "b1", shape)."""
