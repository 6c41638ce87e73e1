"""Decoding without the weights of idle neurons gives the bits of the dense FFN."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from checkpoints import LLAMA, tiny_checkpoint
from test_exactness import same_bits, tokens
from tiny_models import LLAMA as SILU, Spec, Weights, float_tensor, make_tiny_model

from bitinfer import _core
from bitinfer.engine import Engine
from bitinfer.reference import ReferenceDecoder

PACKINGS = ("i2", "t3", "t5")
SHAPES = {  # no whole tiles or K-blocks; then several K-blocks and enough work for threads
    "odd": {"hidden_size": 83, "intermediate_size": 131, "head_dim": 10},
    "larger": {"hidden_size": 320, "intermediate_size": 900, "vocab_size": 1500},
}


def with_active(model: tuple[Spec, Weights], gate: float, down: float) -> tuple[Spec, Weights]:
    """The model with exactly these shares of neurons active: by gate biases and zeros of a norm."""
    spec, weights = model[0], dict(model[1])
    n = spec["intermediate_size"]
    for i in range(spec["num_hidden_layers"]):
        order = np.random.default_rng(i).permutation(n)
        bias, norm = np.full(n, -1e4), np.zeros(n)
        bias[order[: round(gate * n)]], norm[order[: round(down * n)]] = 1e4, 1.0
        weights[f"model.layers.{i}.mlp.gate_proj.bias"] = float_tensor(bias, "f32")
        weights[f"model.layers.{i}.mlp.ffn_sub_norm.weight"] = float_tensor(norm, "f32")
    return spec, weights


def sparse_decoder(model: tuple[Spec, Weights], num_threads: int = 1) -> _core.Decoder:
    decoder = _core.Decoder(*model, num_threads)
    decoder.sparse_ffn = True
    return decoder


def decoded(decoder: _core.Decoder, ids: np.ndarray) -> np.ndarray:
    """Logits of all ids: a prompt, tokens one by one, a few at once, and one by one again."""
    cache = decoder.new_cache(len(ids), "f16")
    ends = [10, *range(11, 20), 23, *range(24, len(ids) + 1)]
    pieces = [ids[a:b] for a, b in zip([0, *ends], ends, strict=False)]
    return np.concatenate([decoder.forward([piece], [cache], "all") for piece in pieces])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("packing", PACKINGS)
def test_sparse_decoding_equals_the_reference(packing: str, shape: str, isa: str) -> None:
    for bias in (False, True):
        model = make_tiny_model(SHAPES[shape], packing=packing, bias=bias)
        ids = tokens(40, model[0])
        expected = ReferenceDecoder(*model).logits(ids)
        assert same_bits(decoded(sparse_decoder(model), ids), expected), isa


@pytest.mark.parametrize(
    ("gate", "down"), [(0.0, 0.0), (0.01, 0.01), (0.3, 0.2), (0.3, 0.0), (0.55, 0.45), (1.0, 1.0)]
)
def test_any_share_of_active_neurons_gives_the_dense_bits(
    gate: float, down: float, isa: str
) -> None:
    model = with_active(make_tiny_model(SHAPES["larger"], packing="t5"), gate, down)
    ids = tokens(30, model[0])
    dense, sparse = _core.Decoder(*model, 1), sparse_decoder(model, 2)
    assert same_bits(decoded(sparse, ids), decoded(dense, ids)), isa
    n = model[0]["intermediate_size"]
    for share_gate, share_down in sparse.ffn_density():
        assert share_gate == pytest.approx(round(gate * n) / n)
        assert share_down <= min(gate, down) + 1 / n


@pytest.mark.parametrize("num_threads", [1, 2, 3])
def test_threads_change_nothing(num_threads: int) -> None:
    model = make_tiny_model({**SHAPES["larger"], "intermediate_size": 7000}, packing="t5")
    ids = tokens(30, model[0])
    expected = decoded(_core.Decoder(*model, 1), ids)
    assert same_bits(decoded(sparse_decoder(model, num_threads), ids), expected)


def test_switching_and_other_threads_keep_the_bits() -> None:
    model = make_tiny_model(SHAPES["odd"])
    ids = tokens(30, model[0])
    decoder = _core.Decoder(*model, 1)
    expected = decoded(decoder, ids)
    assert decoder.ffn_density() == []
    for sparse, threads in ((True, 1), (True, 3), (False, 2), (True, 2)):
        decoder.sparse_ffn = sparse
        decoder.num_threads = threads
        assert decoder.sparse_ffn is sparse
        assert same_bits(decoded(decoder, ids), expected)


def test_bytes_per_token_count_what_is_read() -> None:
    spec, weights = make_tiny_model(SHAPES["larger"], packing="t5")
    dense = _core.Decoder(spec, weights, 1).bytes_per_token()["ternary"]
    decoder = sparse_decoder(with_active((spec, weights), 0.25, 0.125))
    decoded(decoder, tokens(30, spec))
    shares = decoder.ffn_density()
    matrix = _core.packed_bytes("i2", spec["intermediate_size"], spec["hidden_size"])
    left_out = sum(
        weights[f"model.layers.{i}.mlp.{name}_proj.weight"][0].size - share * matrix
        for i, both in enumerate(shares)
        for name, share in zip(("up", "down"), both, strict=True)
    )
    assert decoder.bytes_per_token()["ternary"] == pytest.approx(dense - left_out, abs=2)


def test_silu_is_refused(tmp_path: Path) -> None:
    message = "ffn: expected a model with squared ReLU .* for sparse, got silu"
    with pytest.raises(ValueError, match=message):
        sparse_decoder(make_tiny_model(base=SILU))
    folder = tiny_checkpoint(tmp_path / "llama", LLAMA)
    with pytest.raises(ValueError, match=message):
        Engine.load(folder, ffn="sparse")
    assert Engine.load(folder, ffn="auto").ffn == "dense"


def test_unknown_names_are_refused_before_loading(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ffn: expected auto, dense, sparse, got 'lazy'"):
        Engine.load(tmp_path, ffn="lazy")


def test_an_engine_takes_the_option(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path / "bitnet")
    dense, sparse = Engine.load(folder), Engine.load(folder, ffn="sparse")
    assert (dense.ffn, sparse.ffn) == ("dense", "sparse")
    ids, rows = np.arange(1, 20), []
    for engine in (dense, sparse):
        cache = engine.new_cache()
        rows.append(np.concatenate([engine.forward([[i]], [cache]) for i in ids]))
    assert same_bits(*rows)
    assert dense.ffn_density() == []
    assert len(sparse.ffn_density()) == sparse.spec["num_hidden_layers"]
