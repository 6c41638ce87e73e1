"""Decoder and KvCache: arguments, errors, memory. Numbers are compared in test_exactness.py."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tiny_models import LLAMA, Spec, Weights, float_tensor, make_tiny_model

from bitinfer import _core

ONE = np.array([3], np.int32)


@pytest.fixture(scope="module")
def model() -> tuple[Spec, Weights]:
    return make_tiny_model()


@pytest.fixture
def decoder(model: tuple[Spec, Weights]) -> _core.Decoder:
    return _core.Decoder(*model, 2)


def test_rows_of_logits(decoder: _core.Decoder) -> None:
    sequences = [np.arange(n, dtype=np.int32) for n in (3, 1, 5)]
    everything = decoder.forward(sequences, [decoder.new_cache(8) for _ in sequences], "all")
    last = decoder.forward(sequences, [decoder.new_cache(8) for _ in sequences])
    none = decoder.forward(sequences, [decoder.new_cache(8) for _ in sequences], "none")
    assert (everything.shape, none.shape, everything.dtype) == ((9, 101), (0, 101), np.float32)
    assert last.tobytes() == everything[[2, 3, 8]].tobytes()


def test_logits_are_written_into_out(decoder: _core.Decoder) -> None:
    out = np.zeros((1, 101), np.float32)
    fresh = decoder.forward([ONE], [decoder.new_cache(8)], "last")
    assert decoder.forward([ONE], [decoder.new_cache(8)], "last", out) is not None
    assert out.tobytes() == fresh.tobytes()


@pytest.mark.parametrize("out", [np.zeros((1, 101)), np.zeros((1, 202), np.float32)[:, ::2]])
def test_out_that_would_need_a_copy_is_rejected(decoder: _core.Decoder, out: np.ndarray) -> None:
    with pytest.raises(TypeError):
        decoder.forward([ONE], [decoder.new_cache(8)], "last", out)


def test_read_only_or_misshapen_out_is_rejected(decoder: _core.Decoder) -> None:
    with pytest.raises(ValueError, match=r"out: expected float32 \(1, 101\)"):
        decoder.forward([ONE], [decoder.new_cache(8)], "last", np.zeros((2, 101), np.float32))
    out = np.zeros((1, 101), np.float32)
    out.flags.writeable = False
    with pytest.raises(ValueError, match="writeable"):
        decoder.forward([ONE], [decoder.new_cache(8)], "last", out)


Call = Callable[[_core.Decoder, _core.KvCache], object]
BAD_CALLS: dict[str, tuple[Call, str]] = {
    "no sequence": (lambda d, c: d.forward([], []), "expected at least one sequence"),
    "no token": (lambda d, c: d.forward([ONE[:0]], [c]), "sequence 0 has no tokens"),
    "token too large": (
        lambda d, c: d.forward([np.array([0, 101], np.int32)], [c]),
        "sequence 0, token 1: expected 0 to 100, got 101",
    ),
    "negative token": (lambda d, c: d.forward([-ONE], [c]), "expected 0 to 100, got -3"),
    "too long": (
        lambda d, c: d.forward([np.zeros(9, np.int32)], [c]),
        "holds 2 of 8 positions: no room for 9 more",
    ),
    "cache twice": (lambda d, c: d.forward([ONE, ONE], [c, c]), "cache 1 is in this batch twice"),
    "caches missing": (lambda d, c: d.forward([ONE, ONE], [c]), "each of the 2 sequences, got 1"),
    "negative top_k": (
        lambda d, c: d.forward([ONE], [c], top_k=-1),
        r"top_k: expected 0 \(all\) or more, got -1",
    ),
    "vocab_size too large": (
        lambda d, c: d.forward([ONE], [c], top_k=1, vocab_size=102),
        r"vocab_size: expected 0 \(all\) to 101, got 102",
    ),
    "decode of no token": (lambda d, c: d.decode(101, c, np.empty(101, np.float32)), "got 101"),
    "decode to a short row": (
        lambda d, c: d.decode(3, c, np.empty(100, np.float32)),
        r"out: expected float32 \(101\)",
    ),
    "unknown rows": (lambda d, c: d.forward([ONE], [c], "some"), "last, all or none, got some"),
    "matrix of tokens": (lambda d, c: d.forward([ONE[:, None]], [c]), "one-dimensional"),
    "trim too long": (lambda d, c: c.trim(3), r"expected 0 to 2 \(the positions in the cache\)"),
    "trim negative": (lambda d, c: c.trim(-1), "got -1"),
    "no capacity": (lambda d, c: d.new_cache(0), "capacity: expected 1 to"),
    "unknown dtype": (lambda d, c: d.new_cache(8, "bf16"), "expected f32, f16 or int8, got bf16"),
    "no threads": (
        lambda d, c: setattr(d, "num_threads", 0),
        "num_threads: expected 1 to 256, got 0",
    ),
    "no chunk": (lambda d, c: setattr(d, "prefill_chunk", 0), "prefill_chunk: expected 1 to"),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_bad_call_is_rejected_and_changes_nothing(decoder: _core.Decoder, name: str) -> None:
    call, message = BAD_CALLS[name]
    cache = decoder.new_cache(8)
    decoder.forward([ONE], [cache])
    decoder.forward([ONE], [cache])
    with pytest.raises(ValueError, match=message):
        call(decoder, cache)
    assert cache.length == 2
    control = decoder.new_cache(8)
    decoder.forward([np.array([3, 3], np.int32)], [control])
    assert decoder.forward([ONE], [cache]).tobytes() == decoder.forward([ONE], [control]).tobytes()


def test_what_is_no_cache_is_rejected(decoder: _core.Decoder) -> None:
    with pytest.raises(ValueError, match="caches: expected KvCache, got None"):
        decoder.forward([ONE], [None])  # type: ignore[list-item]


def test_a_cache_of_another_model_is_rejected(decoder: _core.Decoder) -> None:
    other = _core.Decoder(*make_tiny_model({"head_dim": 32}), 1)
    with pytest.raises(ValueError, match="cache 0 was made by a model of another shape"):
        decoder.forward([ONE], [other.new_cache(8)])


Q = "model.layers.1.self_attn.q_proj"
BAD_WEIGHTS: dict[str, tuple[Callable[[Weights], object], str]] = {
    "missing": (
        lambda w: w.pop(f"{Q}.weight"),
        rf"{Q}.weight: missing, expected ternary \(64, 72\)",
    ),
    "unknown": (
        lambda w: w.update(stray=float_tensor(np.zeros(2), "f32")),
        r"stray: not a tensor of this model, got f32 \(2\)",
    ),
    "shape": (
        lambda w: w.update({"model.norm.weight": float_tensor(np.ones(71), "f32")}),
        r"model.norm.weight: expected float \(72\), got f32 \(71\)",
    ),
    "dtype": (
        lambda w: w.update({f"{Q}.weight": float_tensor(np.ones((64, 72)), "f32")}),
        rf"{Q}.weight: expected ternary \(64, 72\), got f32 \(64, 72\)",
    ),
    "truncated": (
        lambda w: w.update({f"{Q}.weight": (w[f"{Q}.weight"][0][:-64], "i2", (64, 72))}),
        rf"{Q}.weight: expected 4096 bytes for i2 \(64, 72\), got 4032",
    ),
    "unaligned": (
        lambda w: w.update({f"{Q}.weight": (np.zeros(8192, np.uint8)[1:4097], "i2", (64, 72))}),
        f"{Q}.weight: expected data at a multiple of 64 bytes",
    ),
    "mixed packings": (
        lambda w: w.update({f"{Q}.weight": make_tiny_model(packing="t5")[1][f"{Q}.weight"]}),
        f"{Q}.weight: expected packing i2 as the tensors before it, got t5",
    ),
    "scale is NaN": (
        lambda w: w.update({f"{Q}.weight_scale": float_tensor(np.array([np.nan]), "f32")}),
        f"{Q}.weight_scale: expected finite numbers, got nan at 0",
    ),
    "scale is zero": (
        lambda w: w.update({f"{Q}.weight_scale": float_tensor(np.array([0.0]), "f32")}),
        f"{Q}.weight_scale: expected a number other than 0",
    ),
}


@pytest.mark.parametrize("name", BAD_WEIGHTS)
def test_bad_weights_are_rejected(model: tuple[Spec, Weights], name: str) -> None:
    spill, message = BAD_WEIGHTS[name]
    weights = dict(model[1])
    spill(weights)
    with pytest.raises(ValueError, match=message):
        _core.Decoder(model[0], weights, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": 0}, "hidden_size: expected 1 to 8388607, got 0"),
        ({"hidden_size": "many"}, "spec: hidden_size: unexpected value 'many'"),
        ({"head_dim": 15}, "head_dim: expected an even number up to 1024, got 15"),
        ({"num_attention_heads": 5}, "expected a multiple of num_key_value_heads"),
        ({"hidden_act": "gelu"}, "hidden_act: expected relu2, silu or gelu_pytorch_tanh, got gelu"),
        ({"head": "f8"}, "head: expected int8 or source, got f8"),
    ],
)
def test_bad_spec_is_rejected(model: tuple[Spec, Weights], change: Spec, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _core.Decoder({**model[0], **change}, model[1], 1)


def test_spec_without_a_key_is_rejected(model: tuple[Spec, Weights]) -> None:
    spec = {key: value for key, value in model[0].items() if key != "head_dim"}
    with pytest.raises(ValueError, match="spec: missing key head_dim"):
        _core.Decoder(spec, model[1], 1)


def test_untied_source_head_needs_its_own_rows() -> None:
    spec, weights = make_tiny_model(base=LLAMA, head="source")
    del weights["lm_head.weight"]
    with pytest.raises(ValueError, match=r"lm_head.weight: missing, expected float \(101, 72\)"):
        _core.Decoder(spec, weights, 1)


@pytest.mark.parametrize(("dtype", "element_bytes"), [("f32", 4), ("f16", 2), ("int8", 1)])
def test_cache_reports_its_bytes(decoder: _core.Decoder, dtype: str, element_bytes: int) -> None:
    cache = decoder.new_cache(130, dtype)
    scales = 2 * 4 if dtype == "int8" else 0
    block = 64 * 2 * 2 * (2 * 16 * element_bytes + scales)  # positions, layers, heads, (k, v)
    assert (cache.capacity, cache.length, cache.dtype) == (130, 0, dtype)
    assert (cache.nbytes, cache.used_bytes) == (3 * block, 0)
    decoder.forward([np.zeros(65, np.int32)], [cache])
    assert (cache.length, cache.used_bytes) == (65, 2 * block)
    assert decoder.bytes_per_token(dtype)["kv_per_position"] == block // 64


def test_bytes_per_token_counts_what_is_read(
    model: tuple[Spec, Weights], decoder: _core.Decoder
) -> None:
    weights = model[1]
    counted = decoder.bytes_per_token()
    assert counted["ternary"] == sum(t[0].nbytes for t in weights.values() if t[1] == "i2")
    assert counted["head"] == 101 * (128 + 4)


def test_weights_stay_alive_with_the_decoder() -> None:
    spec, weights = make_tiny_model()
    decoder = _core.Decoder(spec, weights, 1)
    before = decoder.forward([ONE], [decoder.new_cache(8)]).tobytes()
    del weights
    np.full(1 << 22, 255, np.uint8)
    assert decoder.forward([ONE], [decoder.new_cache(8)]).tobytes() == before


def test_cache_outlives_its_decoder(model: tuple[Spec, Weights]) -> None:
    cache = _core.Decoder(*model, 1).new_cache(8)
    assert cache.copy().capacity == 8


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_unused_capacity_takes_no_memory() -> None:
    code = """if True:
        from tiny_models import make_tiny_model
        from bitinfer import _core
        import numpy as np
        def resident():
            for line in open("/proc/self/status"):
                if line.startswith("VmRSS"):
                    return int(line.split()[1]) * 1024
        decoder = _core.Decoder(*make_tiny_model(), 1)
        decoder.forward([np.zeros(8, np.int32)], [decoder.new_cache(8)])
        before = resident()
        cache = decoder.new_cache(1 << 20)
        decoder.forward([np.zeros(8, np.int32)], [cache])
        print(cache.nbytes, resident() - before)
    """
    here = Path(__file__).parent  # for tiny_models
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=here
    )
    nbytes, grown = map(int, done.stdout.split())
    assert nbytes >= 1 << 28
    assert grown < 1 << 22


def test_threads_and_chunk_can_be_changed(decoder: _core.Decoder) -> None:
    expected = decoder.forward([np.arange(50, dtype=np.int32)], [decoder.new_cache(64)]).tobytes()
    for threads, chunk in ((1, 1), (5, 16), (256, 1000), (2, 256)):
        decoder.num_threads, decoder.prefill_chunk = threads, chunk
        assert (decoder.num_threads, decoder.prefill_chunk) == (threads, chunk)
        got = decoder.forward([np.arange(50, dtype=np.int32)], [decoder.new_cache(64)])
        assert got.tobytes() == expected
