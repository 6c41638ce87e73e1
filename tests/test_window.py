"""Sliding-window attention: the bits of the reference, however the tokens come."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from test_exactness import logits_of, same_bits, tokens
from tiny_models import LLAMA, Spec, Weights, make_tiny_model

from bitinfer import _core
from bitinfer.reference import ReferenceDecoder, attention

TYPES = ["sliding_attention", "full_attention"]


def windowed(window: int, **overrides: object) -> tuple[Spec, Weights]:
    """A model whose first layer looks through a window, with a RoPE base of its own."""
    spec = {"sliding_window": window, "layer_types": TYPES, "rope_local_base_freq": 100.0}
    return make_tiny_model({**spec, **overrides}, base=LLAMA)


@functools.cache
def reference_logits(window: int, kv_cache: str) -> np.ndarray:
    model = windowed(window)
    return ReferenceDecoder(*model, kv_cache).logits(tokens(150, model[0]))


@pytest.mark.parametrize(
    ("window", "kv_cache"), [(1, "f16"), (64, "f16"), (65, "f32"), (70, "int8"), (130, "f16")]
)
def test_logits_equal_reference(window: int, kv_cache: str, isa: str) -> None:
    model = windowed(window)
    got = logits_of(model, tokens(150, model[0]), kv_cache=kv_cache, num_threads=2)
    assert same_bits(got, reference_logits(window, kv_cache)), isa


@pytest.mark.parametrize("window", [7, 64, 100])
def test_no_way_of_cutting_changes_a_bit(window: int) -> None:
    model = windowed(window)
    ids = tokens(150, model[0])
    expected = logits_of(model, ids)
    for pieces in (1, 5, 64, 65):
        assert same_bits(logits_of(model, ids, pieces=pieces), expected), pieces
    for chunk in (1, 7, 64):
        assert same_bits(logits_of(model, ids, prefill_chunk=chunk, num_threads=3), expected)


def test_sequences_of_a_batch_do_not_meet() -> None:
    model = windowed(33)
    decoder = _core.Decoder(*model, 2)
    sequences = [tokens(n, model[0], seed=n) for n in (1, 70, 34, 129)]
    together = decoder.forward(sequences, [decoder.new_cache(256) for _ in sequences], "all")
    assert same_bits(together, np.concatenate([logits_of(model, ids) for ids in sequences]))


@pytest.mark.parametrize("window", [100, 450])
@pytest.mark.parametrize(("kv_heads", "heads"), [(1, 6), (5, 10)])
def test_attention_split_over_blocks_equals_one_thread(
    kv_heads: int, heads: int, window: int
) -> None:
    shape = {"num_attention_heads": heads, "num_key_value_heads": kv_heads, "head_dim": 128}
    model = windowed(window, **shape)
    ids = tokens(700, model[0])  # 11 blocks; long enough that decode splits them over threads
    last = []
    for threads in (1, 2, 7):
        decoder = _core.Decoder(*model, threads)
        cache = decoder.new_cache(704)
        decoder.forward([ids], [cache], "none")
        last.append(decoder.forward([ids[:3]], [cache], "all"))
    assert same_bits(last[0], last[1])
    assert same_bits(last[0], last[2])


def test_a_token_sees_its_window_and_nothing_before(rng: np.random.Generator) -> None:
    window, d = 70, 16
    q, k, v = rng.normal(0, 1, (3, 200, 1, d))
    got = attention(*(x.astype(np.float32) for x in (q, k, v)), window=window)
    for pos in (0, 69, 70, 127, 199):
        seen = slice(max(pos + 1 - window, 0), pos + 1)
        weights = np.exp(k[seen, 0] @ q[pos, 0] / np.sqrt(d))
        expected = weights / weights.sum() @ v[seen, 0]
        assert np.abs(got[pos, 0] - expected).max() < 2e-6


def test_only_sliding_layers_turn_by_the_local_base() -> None:
    spec, weights = windowed(500)
    ids = tokens(40, spec)
    local = logits_of((spec, weights), ids)
    wide = {**weights, "rope.local_inv_freq": weights["rope.inv_freq"]}
    plain = {name: t for name, t in weights.items() if name != "rope.local_inv_freq"}
    no_window = {"sliding_window": None, "layer_types": None, "rope_local_base_freq": None}
    without = logits_of(({**spec, **no_window}, plain), ids)
    assert same_bits(logits_of((spec, wide), ids), without)
    assert not np.allclose(local, without)
    both = {**spec, "layer_types": ["full_attention"] * 2}
    assert same_bits(logits_of((both, weights), ids), without)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer_types": TYPES[:1]}, "layer_types: expected one for each of 2 layers, got 1"),
        ({"layer_types": ["linear_attention"] * 2}, "expected sliding_attention or full_attention"),
        ({"sliding_window": 0}, "sliding_window: expected 1 to 8388607, got 0"),
        ({"sliding_window": None}, "sliding_window: unexpected value None"),
    ],
)
def test_bad_windows_are_rejected(change: Spec, message: str) -> None:
    spec, weights = windowed(20)
    with pytest.raises(ValueError, match=message):
        _core.Decoder({**spec, **change}, weights, 1)
