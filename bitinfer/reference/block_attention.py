"""Attention in blocks of positions over what the KV cache keeps."""

from __future__ import annotations

import numpy as np
from numpy import float32 as _f

from bitinfer.reference.arrays import F32, F64
from bitinfer.reference.elementary import exp_f32, sum16
from bitinfer.reference.steps import quantize

KV_BLOCK = 64


def as_stored(x: F32, kv_cache: str) -> tuple[F32, F32]:
    """What the cache keeps of keys or values (T, kv_heads, d), and its scales (T, kv_heads)."""
    ones = np.ones(x.shape[:-1], np.float32)
    if kv_cache == "f32":
        return x, ones
    if kv_cache == "f16":
        with np.errstate(over="ignore"):
            return x.astype(np.float16).astype(np.float32), ones
    codes, scale = quantize(x, 127, -127)
    return codes.astype(np.float32), scale


def shorten(x: F32) -> F32:
    """X with 13 bits of significand, 0 below 2^-100: times a half it is exact in fp32."""
    wide = x * _f(2049)
    return np.where(np.abs(x) < _f(2.0**-100), _f(0), wide - (wide - x))


def weighted_sum(x: F32, rows: F32) -> F32:
    """Sum of x (T, heads, n) · rows (heads, n, d) over n, ascending from +0: (T, heads, d)."""
    out = np.zeros((*x.shape[:-1], rows.shape[-1]), np.float32)
    for i in range(x.shape[-1]):
        out = out + x[..., i, None] * rows[:, i]
    return out


def exact_sum(x: F32, rows: F32) -> F32:
    """``weighted_sum`` of integers: exact, rounded once."""
    sums: F64 = np.einsum("thn,hnd->thd", x.astype(np.float64), rows.astype(np.float64))
    return sums.astype(np.float32)


def attention(q: F32, k: F32, v: F32, kv_cache: str = "f32", window: int | None = None) -> F32:
    """Causal attention of q (T, heads, d) over k, v (T, kv_heads, d), as (T, heads, d).

    Blocks of 64 positions, each with its own maximum; their results are joined in order. A token
    at pos sees (pos - window, pos], or all up to its own.
    """
    tokens, heads, d = q.shape
    window = tokens if window is None else window
    starts = np.maximum(np.arange(tokens) + 1 - window, 0)  # the first position that a token sees
    keys, values = (
        tuple(np.repeat(part, heads // k.shape[1], axis=1) for part in as_stored(x, kv_cache))
        for x in (k, v)
    )
    factor = np.full((tokens, heads), _f(1) / np.sqrt(_f(d)))
    if kv_cache == "f16":
        q = shorten(q)
    if kv_cache == "int8":
        codes, q_scale = quantize(q, 16383, -16383)
        q, factor = codes.astype(np.float32), q_scale * factor
    m, length, out = (np.zeros(shape, _f) for shape in (factor.shape, factor.shape, q.shape))
    for first in range(0, tokens, KV_BLOCK):
        seen, block = slice(first, first + KV_BLOCK - 1 + window), slice(first, first + KV_BLOCK)
        scores = _scores(q[seen], keys[0][block], keys[1][block], kv_cache)
        scores = _hide(scores * factor[seen][..., None], window)
        m_b = scores.max(axis=-1)
        e = exp_f32(scores - m_b[..., None])  # 0 where unseen, and adding 0 changes nothing
        l_b, o_b = sum16(e), _weigh(e, values[0][block], values[1][block], kv_cache)
        begins = starts[seen] >= first  # whose first block this is
        most = np.maximum(m[seen], m_b)
        a, c = exp_f32(m[seen] - most), exp_f32(m_b - most)
        joined = most, length[seen] * a + l_b * c, out[seen] * a[..., None] + o_b * c[..., None]
        m[seen] = np.where(begins[:, None], m_b, joined[0])
        length[seen] = np.where(begins[:, None], l_b, joined[1])
        out[seen] = np.where(begins[:, None, None], o_b, joined[2])
    return out / length[..., None]


def _hide(scores: F32, window: int) -> F32:
    """Scores (T, heads, count) with -inf where query i does not see position j of the block."""
    i, j = np.arange(scores.shape[0])[:, None], np.arange(scores.shape[2])[None, :]
    return np.where(((j > i) | (j <= i - window))[:, None, :], _f(-np.inf), scores)


def _scores(q: F32, k: F32, scale: F32, kv_cache: str) -> F32:
    """Dots (T, heads, count) of q (T, heads, d) and the keys of a block."""
    columns = k.transpose(1, 2, 0)
    return exact_sum(q, columns) * scale.T if kv_cache == "int8" else weighted_sum(q, columns)


def _weigh(e: F32, v: F32, scale: F32, kv_cache: str) -> F32:
    """Values (T, heads, d) of a block, v (count, heads, d), weighed by e (T, heads, count)."""
    rows = v.transpose(1, 0, 2)
    if kv_cache != "int8":
        return weighted_sum(shorten(e) if kv_cache == "f16" else e, rows)
    w = e * scale.T
    most: F32 = w.max(axis=-1, keepdims=True)
    return exact_sum(np.rint(w * (_f(16383) / most)), rows) * (most / _f(16383))
