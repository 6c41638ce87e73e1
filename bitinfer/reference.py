"""The forward step of csrc in plain NumPy: the engine's oracle and the model's documentation.

Shares no code with the fast path and gives the same bits: every fp32 operation is rounded once, in
the order written here. All arrays are float32 unless said; ``T`` is tokens, ``K`` in_features,
``N`` out_features. Slow on purpose; meant for small models.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I8 = NDArray[np.int8]
Tensor = tuple[NDArray[np.uint8], str, tuple[int, ...]]
"""(bytes, dtype "i8" | "bf16" | "f16" | "f32" or packing "i2" | "t3" | "t5" | "b1", shape)."""

KV_BLOCK = 64
TWO_PLANES = 16383  # activation levels of 15 bits
_f = np.float32


# ---- packed weights (csrc/pack/format.h draws the bytes) ----


_TILES = {  # rows, block columns, bytes
    "i2": (1, 256, 64),
    "t3": (32, 24, 160),
    "t5": (64, 5, 64),
    "b1": (64, 8, 64),
}


def unpack(packed: NDArray[np.uint8], packing: str, n: int, k: int, group: int | None = None) -> I8:
    """Ternary weights (N, K) of a packed matrix, a fresh int8 array.

    With groups of columns (csrc/pack/grouped.h) it is a stack of matrices: one for each group, or
    for as many as fit into a block.
    """
    tile_rows, block_k, block_bytes = _TILES[packing]
    part = k if group is None else max(block_k // group, 1) * group
    parts = []
    for first in range(0, k, part):
        columns = min(part, k - first)
        size = -(-n // tile_rows) * -(-columns // block_k) * block_bytes
        parts.append(_unpack_part(packed, packing, n, columns))
        packed = packed[-(-size // 64) * 64 :]
    return np.concatenate(parts, axis=1)


def _unpack_part(packed: NDArray[np.uint8], packing: str, n: int, k: int) -> I8:
    tile_rows, block_k, block_bytes = _TILES[packing]
    tiles, blocks = -(-n // tile_rows), -(-k // block_k)
    b = packed[: tiles * blocks * block_bytes].reshape(tiles, blocks, block_bytes).astype(np.int64)
    if packing == "i2":
        codes = np.stack([(b >> 2 * g) & 3 for g in range(4)], axis=2)  # (N, blocks, 4, 64)
        w = codes.reshape(tiles, blocks * 256) - 1
    elif packing == "t3":
        pairs = b[:, :, :128].reshape(tiles, blocks, 4, 32)
        magnitude = np.stack([pairs & 15, pairs >> 4], axis=3).reshape(tiles, blocks, 8, 32)
        negative = np.stack([(b[:, :, 128:] >> (7 - j)) & 1 for j in range(8)], axis=2)
        w = _trits(np.where(negative == 1, -magnitude, magnitude), 3)
    elif packing == "b1":
        bits = np.stack([(b >> i) & 1 for i in range(8)], axis=3)  # (tiles, blocks, rows, 8)
        w = 2 * bits.transpose(0, 2, 1, 3).reshape(tiles * tile_rows, blocks * 8) - 1
    else:
        w = _trits(np.where(b & 128, -(b & 127), b & 127)[:, :, None, :], 5)
    return w.reshape(-1, w.shape[-1])[:n, :k].astype(np.int8)


def _trits(v: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Balanced base-3 digits of v (tiles, blocks, groups, rows), as (tiles, rows, columns)."""
    digits = []
    for _ in range(count):
        digit = (v + 1) % 3 - 1
        digits.append(digit)
        v = (v - digit) // 3
    w = np.stack(digits[::-1], axis=3)  # (tiles, blocks, groups, count, rows)
    return np.moveaxis(w, -1, 1).reshape(w.shape[0], w.shape[-1], -1)


def to_f32(tensor: Tensor) -> F32:
    """A float tensor as float32; exact."""
    raw, dtype, shape = tensor
    if dtype == "bf16":
        return (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32).reshape(shape)
    return raw.view({"f32": np.float32, "f16": np.float16}[dtype]).astype(np.float32).reshape(shape)


# ---- sums and elementary functions ----


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


# ---- steps of a layer ----


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


def scale_group(spec: Mapping[str, Any], k: int) -> int | None:
    """Columns of K that share a weight scale in each row; None: the matrix has one scale."""
    if spec["scale_group_size"] is not None:
        return min(int(spec["scale_group_size"]), k)
    return None if spec["scale_group_count"] is None else k // int(spec["scale_group_count"])


def rope(x: F32, cos: F32, sin: F32) -> F32:
    """Rotate-half: pairs (i, i + d/2) of x (T, heads, d) by the angles of cos, sin (T, d/2)."""
    a, b = np.split(x, 2, axis=-1)
    c, s = cos[:, None, :], sin[:, None, :]
    return np.concatenate([a * c - b * s, b * c + a * s], axis=-1)


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


# ---- the model ----


class ReferenceDecoder:
    """The decoder over the names, tuples and spec keys that ``_core.Decoder`` takes.

    Args:
        spec: As in ``_core.Decoder``, ``head`` included.
        weights: name → (bytes, dtype or packing, shape); not modified.
        kv_cache: ``"f32"``, ``"f16"`` or ``"int8"``: what keys and values are rounded to.
    """

    def __init__(
        self, spec: Mapping[str, Any], weights: Mapping[str, Tensor], kv_cache: str = "f16"
    ) -> None:
        self.spec, self.weights, self.kv_cache = spec, weights, kv_cache
        self.eps = float(spec["rms_norm_eps"])

    def norm(self, x: F32, name: str) -> F32:
        """RMSNorm of x (T, K) with the tensor ``name``."""
        return rms_norm(x, to_f32(self.weights[name]), self.eps)

    def linear(self, x: F32, name: str) -> F32:
        """Projection ``name`` of x (T, K): (integer sum · act_scale) · weight_scale + bias."""
        raw, packing, (n, k) = self.weights[f"{name}.weight"]
        group, levels = scale_group(self.spec, k), self.spec["activation_levels"]
        w = unpack(raw, packing, n, k, group)
        scales = to_f32(self.weights[f"{name}.weight_scale"])
        if group is None and levels != TWO_PLANES:
            codes, act_scale = quantize(self.own_norm(x, name), levels, -128)
            y: F32 = (integer_matmul(codes, w).astype(np.float32) * act_scale[:, None]) * scales[0]
        else:
            rows = np.full((1, n), scales[0]) if group is None else scales
            codes, act_scale = self.grouped_codes(x, name, group or k)
            y = grouped_matmul(codes, act_scale, w, rows, group or k)
        if f"{name}.bias" in self.weights:
            y = y + to_f32(self.weights[f"{name}.bias"])
        return y

    def grouped_codes(self, x: F32, name: str, group: int) -> tuple[NDArray[np.int32], F32]:
        """Codes (T, K) of x and their scales: (groups, T), or (1, T) of rows as a whole."""
        levels, k = self.spec["activation_levels"], x.shape[-1]
        low = -levels if levels == TWO_PLANES else -128
        step = group if self.spec["activation_groups"] else k
        parts = [
            quantize(self.own_norm(x[:, first : first + step], name, first), levels, low)
            for first in range(0, k, step)
        ]
        codes, scales = zip(*parts, strict=True)
        return np.concatenate(codes, axis=1), np.stack(scales)

    def own_norm(self, x: F32, name: str, first: int = 0) -> F32:
        """Projection ``name``'s norm, if it has one, of columns x (T, K) of its input."""
        kind, eps = self.spec["projection_norm"], self.spec["projection_norm_eps"]
        if kind == "rms_norm":
            gain = to_f32(self.weights[f"{name}.norm.weight"])[first : first + x.shape[-1]]
            return rms_norm(x, gain, eps)
        return layer_norm(x, eps) if kind == "layer_norm" else x

    def embed(self, token_ids: NDArray[np.int32]) -> F32:
        """Embedding rows of the tokens, (T, hidden)."""
        rows = to_f32(self.weights["model.embed_tokens.weight"])[token_ids]
        return rows * _f(self.spec["embedding_multiplier"])

    def window(self, layer: int) -> int | None:
        """Positions that a token sees in a layer of sliding attention; None: all."""
        types = self.spec["layer_types"]
        sliding = types is not None and types[layer] == "sliding_attention"
        return self.spec["sliding_window"] if sliding else None

    def attention(self, x: F32, layer: int) -> F32:
        """Self-attention of normed x (T, hidden) at positions 0..T-1, o_proj included."""
        at, d = f"model.layers.{layer}.self_attn", self.spec["head_dim"]
        q, k, v = (self.linear(x, f"{at}.{p}_proj").reshape(len(x), -1, d) for p in "qkv")
        if self.spec["qk_norm"]:
            q, k = self.norm(q, f"{at}.q_norm.weight"), self.norm(k, f"{at}.k_norm.weight")
        positions = np.arange(len(x), dtype=np.float32)
        window = self.window(layer)
        local = window is not None and self.spec["rope_local_base_freq"] is not None
        table = to_f32(self.weights["rope.local_inv_freq" if local else "rope.inv_freq"])
        sin, cos = sin_cos_f32(positions[:, None] * table)
        factor = _f((self.spec["rope_scaling"] or {}).get("attention_factor", 1.0))
        sin, cos = sin * factor, cos * factor
        out = attention(rope(q, cos, sin), rope(k, cos, sin), v, self.kv_cache, window)
        out = out.reshape(len(x), -1)
        if self.spec["attn_sub_norm"]:
            out = self.norm(out, f"{at}.attn_sub_norm.weight")
        return self.linear(out, f"{at}.o_proj")

    def mlp(self, x: F32, layer: int) -> F32:
        """Gated feed-forward of normed x (T, hidden)."""
        at = f"model.layers.{layer}.mlp"
        gate, up = self.linear(x, f"{at}.gate_proj"), self.linear(x, f"{at}.up_proj")
        h = gated(gate, up, self.spec["hidden_act"])
        if self.spec["ffn_sub_norm"]:
            h = self.norm(h, f"{at}.ffn_sub_norm.weight")
        return self.linear(h, f"{at}.down_proj")

    def layer(self, x: F32, layer: int) -> F32:
        """One decoder layer on the residual stream x (T, hidden)."""
        at = f"model.layers.{layer}"
        attention = self.attention(self.norm(x, f"{at}.input_layernorm.weight"), layer)
        if not self.spec["post_norms"]:
            x = x + attention
            return x + self.mlp(self.norm(x, f"{at}.post_attention_layernorm.weight"), layer)
        x = x + self.norm(attention, f"{at}.post_attention_layernorm.weight")
        mlp = self.mlp(self.norm(x, f"{at}.pre_feedforward_layernorm.weight"), layer)
        return x + self.norm(mlp, f"{at}.post_feedforward_layernorm.weight")

    def head(self, x: F32) -> F32:
        """Logits (T, vocab) of hidden states x (T, hidden)."""
        if self.spec["head"] == "int8":
            raw, _, shape = self.weights["lm_head.weight"]
            codes, act_scale = quantize(x, 16383, -16383)
            head = raw.view(np.int8).reshape(shape)[:, : x.shape[-1]]
            sums = integer_matmul(codes, head).astype(np.float32)
            return (sums * act_scale[:, None]) * to_f32(self.weights["lm_head.weight_scale"])
        tied = "model.embed_tokens.weight" if self.spec["tie_word_embeddings"] else "lm_head.weight"
        rows = to_f32(self.weights[tied])
        return np.stack([sum16(rows * hidden) for hidden in x])

    def hidden(self, token_ids: NDArray[np.int32]) -> F32:
        """Final-normed hidden states (T, hidden) of tokens at positions 0..T-1."""
        x = self.embed(np.asarray(token_ids))
        for i in range(self.spec["num_hidden_layers"]):
            x = self.layer(x, i)
        return self.norm(x, "model.norm.weight")

    def logits(self, token_ids: NDArray[np.int32]) -> F32:
        """Logits (T, vocab) of tokens at positions 0..T-1."""
        return self.head(self.hidden(token_ids))
