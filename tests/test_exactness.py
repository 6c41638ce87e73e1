"""The promise of equal bits: logits do not depend on how, where or beside what they are made."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from tiny_models import LLAMA, Spec, Weights, make_tiny_model

from bitinfer import _core
from bitinfer.reference import ReferenceDecoder

TERNARY_PACKINGS = ("i2", "t3", "t5")
FORMS = {  # what a model can be; (overrides, make_tiny_model's arguments)
    "bitnet": ({}, {}),
    "llama": ({}, {"base": LLAMA}),
    "source_head": ({}, {"head": "source"}),
    "source_head_untied_f16": ({}, {"base": LLAMA, "head": "source", "embedding_dtype": "f16"}),
    "f32_embedding": ({}, {"head": "source", "embedding_dtype": "f32"}),
    "biases": ({}, {"base": LLAMA, "bias": True}),
    "one_kv_head": ({"num_key_value_heads": 1, "num_attention_heads": 6}, {}),
    "five_kv_heads": ({"num_key_value_heads": 5, "num_attention_heads": 10}, {}),
    "no_groups": ({"num_key_value_heads": 4}, {}),
    "odd_sizes": ({"hidden_size": 83, "intermediate_size": 131, "head_dim": 10}, {}),
    "yarn": ({"rope_scaling": {"rope_type": "yarn", "attention_factor": 1.139}}, {}),
    "head_dim_80": ({"head_dim": 80, "num_attention_heads": 3, "num_key_value_heads": 1}, {}),
    "head_dim_100": ({"head_dim": 100, "num_attention_heads": 2}, {"base": LLAMA}),
    "head_dim_256": ({"head_dim": 256, "num_attention_heads": 2, "num_key_value_heads": 1}, {}),
    "qk_norms": ({"qk_norm": True}, {"base": LLAMA}),
    "post_norms": (
        {"post_norms": True, "embedding_multiplier": 8.5, "hidden_act": "gelu_pytorch_tanh"},
        {"base": LLAMA},
    ),
    "projection_norms": (
        {"projection_norm": "rms_norm", "projection_norm_eps": 1e-6, "qk_norm": True},
        {"base": LLAMA},
    ),
    "norms_everywhere": (
        {"projection_norm": "rms_norm", "projection_norm_eps": 1e-6, "post_norms": True},
        {},
    ),
    "layer_norms": (
        {"projection_norm": "layer_norm", "projection_norm_eps": 1e-5, "activation_levels": 128},
        {"base": LLAMA},
    ),
    "row_scales": ({"scale_group_count": 1}, {}),
    "groups": ({"scale_group_size": 64, "qk_norm": True}, {"base": LLAMA, "bias": True}),
    "groups_in_15_bits": ({"scale_group_size": 32, "activation_levels": 16383}, {"base": LLAMA}),
    "15_bits": ({"activation_levels": 16383, "post_norms": True}, {}),
    "groups_of_activations": (
        {
            "projection_norm": "layer_norm",
            "projection_norm_eps": 1e-5,
            "activation_levels": 128,
            "activation_groups": True,
            "scale_group_count": 4,
        },
        {},
    ),
    "larger": ({"hidden_size": 320, "intermediate_size": 900, "vocab_size": 1500}, {}),
}


def tokens(count: int, spec: Spec, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, spec["vocab_size"], count).astype(np.int32)


def logits_of(
    model: tuple[Spec, Weights],
    ids: np.ndarray,
    *,
    kv_cache: str = "f16",
    num_threads: int = 1,
    prefill_chunk: int = 256,
    pieces: int | None = None,
) -> np.ndarray:
    """Logits of all tokens; ``pieces`` tokens a forward call, or all in one."""
    decoder = _core.Decoder(*model, num_threads)
    decoder.prefill_chunk = prefill_chunk
    cache = decoder.new_cache(len(ids), kv_cache)
    step = pieces or len(ids)
    rows = [decoder.forward([ids[i : i + step]], [cache], "all") for i in range(0, len(ids), step)]
    return np.concatenate(rows)


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and a.tobytes() == b.tobytes()


def assert_threads_change_nothing(
    shape: Spec, context: int, kv_cache: str, num_threads: int
) -> None:
    """Four tokens after a context have the logits that one thread makes."""
    model = make_tiny_model(shape)
    ids = tokens(context, model[0])
    alone = _core.Decoder(*model, 1)
    cache = alone.new_cache(context + 4, kv_cache)
    alone.forward([ids], [cache], "none")
    copy = cache.copy()
    split = _core.Decoder(*model, num_threads)
    for _ in range(4):
        expected = alone.forward([ids[:1]], [cache], "last")
        assert same_bits(split.forward([ids[:1]], [copy], "last"), expected)


@pytest.fixture(scope="module")
def model() -> tuple[Spec, Weights]:
    return make_tiny_model(packing="t3")


@pytest.fixture(scope="module")
def ids(model: tuple[Spec, Weights]) -> np.ndarray:
    return tokens(150, model[0])  # three blocks of the cache, the last one not full


@pytest.fixture(scope="module")
def expected(model: tuple[Spec, Weights], ids: np.ndarray) -> np.ndarray:
    logits = ReferenceDecoder(*model).logits(ids)
    assert np.isfinite(logits).all()
    assert logits.std() > 0.1
    return logits


@pytest.fixture
def gemv_auto() -> Iterator[None]:
    yield
    _core.set_gemv("auto")


@pytest.mark.parametrize("kv_cache", ["f32", "f16", "int8"])
@pytest.mark.parametrize("form", FORMS)
def test_engine_equals_reference(form: str, kv_cache: str) -> None:
    overrides, arguments = FORMS[form]
    model = make_tiny_model(overrides, packing="t5", **arguments)
    ids = tokens(70, model[0])
    expected = ReferenceDecoder(*model, kv_cache).logits(ids)
    assert same_bits(logits_of(model, ids, kv_cache=kv_cache), expected)
    assert same_bits(logits_of(model, ids, kv_cache=kv_cache, pieces=1), expected)


@pytest.mark.parametrize(
    "form",
    ["bitnet", "llama", "source_head_untied_f16", "odd_sizes", "head_dim_100", "groups_in_15_bits"],
)
def test_every_isa_equals_reference(form: str, isa: str) -> None:
    overrides, arguments = FORMS[form]
    model = make_tiny_model(overrides, **arguments)
    ids = tokens(70, model[0])
    for kv_cache in ("f32", "f16", "int8"):
        expected = ReferenceDecoder(*model, kv_cache).logits(ids)
        assert same_bits(logits_of(model, ids, kv_cache=kv_cache), expected)
        assert same_bits(logits_of(model, ids, kv_cache=kv_cache, pieces=1), expected)


@pytest.mark.usefixtures("gemv_auto")
@pytest.mark.parametrize("family", ["addsub", "dot"])
@pytest.mark.parametrize("packing", TERNARY_PACKINGS)
def test_every_packing_and_gemv_family_decodes_alike(
    packing: str, family: str, isa: str, ids: np.ndarray, expected: np.ndarray
) -> None:
    _core.set_gemv(family)
    assert isa == _core.active_isa()
    model = make_tiny_model(packing=packing)
    assert same_bits(logits_of(model, ids[:40], pieces=1), expected[:40])
    assert same_bits(logits_of(model, ids), expected)


@pytest.mark.usefixtures("gemv_auto")
def test_binary_weights_decode_alike_in_every_packing(isa: str) -> None:
    spec, binary = make_tiny_model(packing="b1")
    ids = tokens(40, spec)
    expected = ReferenceDecoder(spec, binary).logits(ids)
    assert isa == _core.active_isa()
    for packing in (*TERNARY_PACKINGS, "b1"):
        weights = {
            name: (_core.repack(w[0], "b1", packing, *w[2]), packing, w[2]) if w[1] == "b1" else w
            for name, w in binary.items()
        }
        for family in ("addsub", "dot"):
            _core.set_gemv(family)
            assert same_bits(logits_of((spec, weights), ids, pieces=1), expected)
        assert same_bits(logits_of((spec, weights), ids), expected)


@pytest.mark.parametrize("packing", [*TERNARY_PACKINGS, "b1"])
def test_every_number_of_tokens_at_once_gives_the_same_bits(packing: str, isa: str) -> None:
    # Kernels change with the number, at 3 to 5, 9, 13, 33, 41 and 65; the model has no zero
    # weights, so that b1 holds it too.
    spec, weights = make_tiny_model({"num_hidden_layers": 1}, packing="b1")
    weights = {
        name: (_core.repack(w[0], "b1", packing, *w[2]), packing, w[2]) if w[1] == "b1" else w
        for name, w in weights.items()
    }
    ids = tokens(73, spec)
    expected = ReferenceDecoder(spec, weights).logits(ids)
    assert isa == _core.active_isa()
    for count in (*range(2, 27), 31, 32, 33, 40, 41, 48, 63, 64, 65, 66, 73):
        assert same_bits(logits_of((spec, weights), ids[:count]), expected[:count]), count


@pytest.mark.parametrize("pieces", [1, None])
@pytest.mark.parametrize("num_threads", [1, 2, 3, 7])
def test_thread_count_changes_nothing(num_threads: int, pieces: int | None) -> None:
    model = make_tiny_model(FORMS["larger"][0], packing="t5")  # large enough to be split
    ids = tokens(140, model[0])
    alone = logits_of(model, ids, pieces=pieces)
    assert same_bits(logits_of(model, ids, num_threads=num_threads, pieces=pieces), alone)


@pytest.mark.parametrize("num_threads", [2, 7])
@pytest.mark.parametrize("kv_cache", ["f32", "f16", "int8"])
@pytest.mark.parametrize(("kv_heads", "heads"), [(1, 6), (5, 10)])
def test_attention_split_over_blocks_equals_one_thread(
    kv_heads: int, heads: int, kv_cache: str, num_threads: int
) -> None:
    shape = {
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": 128,
        "num_hidden_layers": 1,
    }
    # 11 blocks; long enough that decode splits them over threads
    assert_threads_change_nothing(shape, 700, kv_cache, num_threads)


def test_attention_joined_in_several_waves_equals_one_thread() -> None:
    shape = {
        "num_attention_heads": 192,
        "num_key_value_heads": 3,
        "head_dim": 256,
        "num_hidden_layers": 1,
    }
    # Of three heads two threads have one each, and the blocks of the third: 33, and partial results
    # of 512 K / (64 x 258) = 31 have room.
    assert_threads_change_nothing(shape, 2100, "int8", 2)


@pytest.mark.parametrize("packing", TERNARY_PACKINGS)
def test_more_rows_than_a_task_has_room_for(packing: str, isa: str) -> None:
    # A GEMV task holds 8,192 sums, of gate and up 4,096 each; a GEMM task of 2 tokens 2,048 rows.
    shape = {"hidden_size": 48, "intermediate_size": 9001, "num_hidden_layers": 1}
    model = make_tiny_model(shape, packing=packing)
    ids = tokens(6, model[0])
    expected = ReferenceDecoder(*model).logits(ids)
    assert isa == _core.active_isa()
    for num_threads in (1, 2):
        for pieces in (1, 2, 6):
            assert same_bits(
                logits_of(model, ids, num_threads=num_threads, pieces=pieces), expected
            )


@pytest.mark.parametrize("prefill_chunk", [1, 7, 64, 256])
def test_prefill_chunk_changes_nothing(
    prefill_chunk: int, model: tuple[Spec, Weights], ids: np.ndarray, expected: np.ndarray
) -> None:
    assert same_bits(logits_of(model, ids, prefill_chunk=prefill_chunk, num_threads=2), expected)


@pytest.mark.parametrize("pieces", [1, 2, 63, 64, 65])
def test_cached_decode_equals_prefill(
    pieces: int, model: tuple[Spec, Weights], ids: np.ndarray, expected: np.ndarray
) -> None:
    assert same_bits(logits_of(model, ids, pieces=pieces), expected)


def test_sequences_of_a_batch_do_not_meet(model: tuple[Spec, Weights]) -> None:
    decoder = _core.Decoder(*model, 2)
    sequences = [tokens(n, model[0], seed=n) for n in (1, 70, 3, 129, 64)]
    dtypes = ["f16", "int8", "f16", "f32", "f16"]
    alone = [
        logits_of(model, ids, kv_cache=dtype) for ids, dtype in zip(sequences, dtypes, strict=True)
    ]
    caches = [decoder.new_cache(256, dtype) for dtype in dtypes]
    together = decoder.forward(sequences, caches, "all")
    assert same_bits(together, np.concatenate(alone))
    following = [ids[:1] for ids in sequences]
    step = decoder.forward(following, caches, "last")
    for ids, more, dtype, row in zip(sequences, following, dtypes, step, strict=True):
        longer = logits_of(model, np.concatenate([ids, more]), kv_cache=dtype)
        assert same_bits(row, longer[-1])


def test_trimmed_positions_can_be_computed_anew(
    model: tuple[Spec, Weights], ids: np.ndarray, expected: np.ndarray
) -> None:
    decoder = _core.Decoder(*model, 1)
    cache = decoder.new_cache(200)
    decoder.forward([ids[::-1].copy()], [cache], "none")
    for keep in (64, 63, 1, 0):
        cache.trim(0)
        decoder.forward([ids], [cache], "none")
        cache.trim(keep)
        assert same_bits(decoder.forward([ids[keep:]], [cache], "all"), expected[keep:])


def test_a_copied_cache_goes_its_own_way(
    model: tuple[Spec, Weights], ids: np.ndarray, expected: np.ndarray
) -> None:
    decoder = _core.Decoder(*model, 1)
    cache = decoder.new_cache(200)
    decoder.forward([ids[:70]], [cache], "none")
    copy = cache.copy()
    decoder.forward([ids[:50]], [cache], "none")
    assert (cache.length, copy.length) == (120, 70)
    assert same_bits(decoder.forward([ids[70:]], [copy], "all"), expected[70:])
