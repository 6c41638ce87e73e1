"""Steps of a layer: norms, quantization, products with weights, RoPE, activations."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy import float32 as _f
from numpy.typing import NDArray

from bitinfer.reference.arrays import F32, F64, I8
from bitinfer.reference.elementary import exp_f32, sum16


def rms_norm(x: F32, weight: F32, eps: float) -> F32:
    """(x · inv) · weight, inv = 1 / sqrt(sum(x²) / K + eps); x: (T, K), weight: (K)."""
    inv: F32 = _f(1) / np.sqrt(sum16(x * x) / _f(x.shape[-1]) + _f(eps))
    return (x * inv[..., None]) * weight


def layer_norm(x: F32, eps: float) -> F32:
    """(x - mean) · inv, inv = 1 / sqrt(sum((x - mean)²) / K + eps); x: (T, K)."""
    count = _f(x.shape[-1])
    d = x - (sum16(x) / count)[..., None]
    inv: F32 = _f(1) / np.sqrt(sum16(d * d) / count + _f(eps))
    return d * inv[..., None]


def quantize(x: F32, levels: int, low: int) -> tuple[NDArray[np.int32], F32]:
    """Codes clamp(rint(x · (levels / m)), low, high) and scales m / levels of rows x (T, K).

    high = levels, of 128 levels 127, which int8 holds;
    m = max(absmax of the row, 1e-5); rint rounds half to even.
    """
    m = np.maximum(np.abs(x).max(axis=-1), _f(1e-5))
    high = 127 if levels == 128 else levels
    codes = np.clip(np.rint(x * (_f(levels) / m)[..., None]), low, high)
    return codes.astype(np.int32), m / _f(levels)


def integer_matmul(a: NDArray[Any], w: NDArray[Any]) -> F64:
    """A (T, K) · w (N, K)ᵀ, exact: all partial sums are integers below 2^53."""
    return a.astype(np.float64) @ w.astype(np.float64).T


def grouped_matmul(codes: NDArray[Any], act_scale: F32, w: I8, scales: F32, group: int) -> F32:
    """Sum over groups g, ascending from +0, of (integer sum of g · act_scale[g]) · scales[g].

    codes: (T, K), act_scale: (groups, T) or (1, T), w: (N, K), scales: (groups, N), a group
    ``group`` columns.
    """
    y = np.zeros((len(codes), len(w)), np.float32)
    act_scale = np.broadcast_to(act_scale, (len(scales), len(codes)))
    for g, scale in enumerate(scales):
        columns = slice(g * group, (g + 1) * group)
        acc = integer_matmul(codes[:, columns], w[:, columns]).astype(np.float32)
        y = y + (acc * act_scale[g][:, None]) * scale
    return y


def rope(x: F32, cos: F32, sin: F32) -> F32:
    """Rotate-half: pairs (i, i + d/2) of x (T, heads, d) by the angles of cos, sin (T, d/2)."""
    a, b = np.split(x, 2, axis=-1)
    c, s = cos[:, None, :], sin[:, None, :]
    return np.concatenate([a * c - b * s, b * c + a * s], axis=-1)


GELU_LINEAR = _f(-2 * np.sqrt(2 / np.pi))
GELU_CUBIC = _f(-2 * np.sqrt(2 / np.pi) * 0.044715)


def gated(gate: F32, up: F32, hidden_act: str) -> F32:
    """act(gate) · up, elementwise (csrc/kernels/float_kernels.h)."""
    if hidden_act == "relu2":
        return np.where(gate > 0, (gate * gate) * up, _f(0))
    if hidden_act == "silu":
        return (gate / (_f(1) + exp_f32(_f(0) - gate))) * up
    t = ((gate * gate) * GELU_CUBIC + GELU_LINEAR) * gate
    return (gate / (_f(1) + exp_f32(t))) * up
