"""Sums and elementary functions, each in one fixed order of operations."""

from __future__ import annotations

import numpy as np
from numpy import float32 as _f

from bitinfer.reference.arrays import F32, F64


def sum16(x: F32) -> F32:
    """Sum over the last axis: lane j adds elements j, j + 16, … in order; then 16 lanes fold."""
    x = np.concatenate([x, np.zeros((*x.shape[:-1], -x.shape[-1] % 16), np.float32)], axis=-1)
    lanes = np.zeros((*x.shape[:-1], 16), np.float32)
    for i in range(0, x.shape[-1], 16):
        lanes = lanes + x[..., i : i + 16]
    for half in (8, 4, 2, 1):
        lanes = lanes[..., :half] + lanes[..., half:]
    return lanes[..., 0]


_EXP = [
    _f(float.fromhex(c))
    for c in ("0x1.6a23c8p-10", "0x1.123a20p-7", "0x1.5558f4p-5", "0x1.555492p-3", "0x1.fffffcp-2")
]
_EXP += [_f(1), _f(1)]


def exp_f32(x: F32) -> F32:
    """Exp in fp32 (csrc/kernels/float_kernels.h): 0 below -87.3125, inf above 88.375."""
    x = np.asarray(x, np.float32)
    inside = np.clip(x, _f(-87.3125), _f(88.375))
    n = np.rint(inside * _f(float.fromhex("0x1.715476p+0")))
    r = (inside - n * _f(0.693359375)) - n * _f(float.fromhex("-0x1.bd0106p-13"))
    p = np.zeros_like(x)
    for c in _EXP:
        p = p * r + c
    power = ((n.astype(np.int32) + 127) << 23).view(np.float32)
    y: F32 = np.where(x > _f(88.375), _f(np.inf), p * power)
    return np.where(x < _f(-87.3125), _f(0), y)


_HALF_PI = tuple(map(float.fromhex, ("0x1.921fb54p+0", "0x1.10b4611p-30", "0x1.4c4c6628b80dcp-59")))
_LN2 = tuple(map(float.fromhex, ("0x1.62e42feep-1", "0x1.a39ef35793c76p-33")))


def sin_cos_f32(angles: F32) -> tuple[F32, F32]:
    """Sine and cosine of fp32 angles below 2^24, in double, rounded to fp32 at the end."""
    x = np.asarray(angles, np.float32).astype(np.float64)
    q = np.rint(x * float.fromhex("0x1.45f306dc9c883p-1"))
    r = ((x - q * _HALF_PI[0]) - q * _HALF_PI[1]) - q * _HALF_PI[2]
    r2 = r * r
    s: F64 = np.full_like(r, -1 / 1307674368000)
    c: F64 = np.full_like(r, 1 / 20922789888000)
    for k in (1 / 6227020800, -1 / 39916800, 1 / 362880, -1 / 5040, 1 / 120, -1 / 6):
        s = s * r2 + k
    for k in (-1 / 87178291200, 1 / 479001600, -1 / 3628800, 1 / 40320, -1 / 720, 1 / 24, -1 / 2):
        c = c * r2 + k
    s, c = r + r * (r2 * s), 1.0 + r2 * c
    quadrant = q.astype(np.int64) & 3
    sin, cos = np.where(quadrant & 1, c, s), np.where(quadrant & 1, s, c)
    sin, cos = np.where(quadrant & 2, -sin, sin), np.where((quadrant + 1) & 2, -cos, cos)
    return sin.astype(np.float32), cos.astype(np.float32)


def pow_f64(base: float, exponents: F64) -> F64:
    """Powers of base > 0 as exp(exponent · ln(base)), where they are normal doubles."""
    m, e = (float(v) for v in np.frexp(np.float64(base)))
    if m < float.fromhex("0x1.6a09e667f3bcdp-1"):
        m, e = m * 2.0, e - 1.0
    s = (m - 1.0) / (m + 1.0)
    p = 1.0 / 23.0
    for odd in range(21, 2, -2):
        p = p * (s * s) + 1.0 / odd
    ln = e * _LN2[0] + (e * _LN2[1] + (2.0 * s + 2.0 * s * ((s * s) * p)))
    y = np.asarray(exponents, np.float64) * ln
    n = np.rint(y * float.fromhex("0x1.71547652b82fep+0"))
    r = (y - n * _LN2[0]) - n * _LN2[1]
    power: F64 = np.ones_like(y)
    for i in range(14, 0, -1):
        power = power * (r / i) + 1.0
    return np.ldexp(power, n.astype(np.int32))
