"""The two-plane head inside a decoder: its largest logits are those of the int8 head.

A decoder whose ternary weights are all zero hands its embedding rows to the head, so that each
token id is a hidden state of the test's choice.
"""

from __future__ import annotations

import numpy as np
import pytest
from tiny_models import BITNET, float_tensor, make_tiny_model

from bitinfer import _core

PLANE_HEADS = ("6+2", "5+3")
each_head = pytest.mark.parametrize("head", PLANE_HEADS)


class Heads:
    """The int8 head of ``codes`` (N, K) and the same in two planes, on states (N, K)."""

    def __init__(
        self,
        codes: np.ndarray,
        scales: np.ndarray,
        states: np.ndarray,
        threads: int = 1,
        norm: float = 1.0,
    ) -> None:
        n, k = codes.shape
        sizes = {"vocab_size": n, "hidden_size": k, "num_hidden_layers": 1}
        spec, weights = make_tiny_model(
            {**sizes, "intermediate_size": 1, "tie_word_embeddings": False}, base=BITNET
        )
        for name, (_, dtype, shape) in weights.items():
            if dtype == "i2":
                weights[name] = (_core.pack(np.zeros(shape, np.int8), "i2"), dtype, shape)
        padded = np.zeros((n, -(-k // 64) * 64), np.int8)
        padded[:, :k] = codes
        weights["lm_head.weight"] = (padded.reshape(-1).view(np.uint8), "i8", padded.shape)
        weights["lm_head.weight_scale"] = float_tensor(scales, "f32")
        weights["model.embed_tokens.weight"] = float_tensor(states, "f32")
        weights["model.norm.weight"] = float_tensor(np.full(k, norm), "f32")
        self.vocab_size = n
        self.decoders = {
            head: _core.Decoder({**spec, "head": head}, weights, threads)
            for head in ("int8", *PLANE_HEADS)
        }

    def logits(self, head: str, state: int, top_k: int = 0, vocab_size: int = 0) -> np.ndarray:
        decoder = self.decoders[head]
        ids = [np.array([state], np.int32)]
        cache = decoder.new_cache(1, "f16")
        return decoder.forward(ids, [cache], "last", top_k=top_k, vocab_size=vocab_size)[0]

    def candidates(self, head: str) -> int:
        return self.decoders[head].head_candidates()


def random_heads(n: int, k: int, seed: int = 0, threads: int = 1) -> Heads:
    """Rows of unequal length, states that some rows resemble."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(0, 1, (n, k)) * rng.lognormal(0, 0.3, (n, 1))
    codes, scales = _core.quantize_rows_i8(
        np.ascontiguousarray(rows, np.float32).reshape(-1).view(np.uint8), "f32", n, k
    )
    states = rng.normal(0, 1, (n, k)) + 0.3 * rows[rng.permutation(n)]
    return Heads(codes[:, :k], scales, states, threads)


def check_largest(exact: np.ndarray, got: np.ndarray, k: int, limit: int) -> None:
    """``got`` is exact wherever it is finite, and that is so for the k largest below ``limit``."""
    kept = got > -np.inf
    assert np.array_equal(got[kept], exact[kept])
    kth = np.sort(exact[:limit])[::-1][min(k, limit) - 1]
    assert (got == exact)[:limit][exact[:limit] >= kth].all()


@each_head
@pytest.mark.parametrize("k", [1, 5, 40, 100])
def test_the_largest_logits_are_those_of_the_int8_head(head, k):
    heads = random_heads(4000, 192)
    read = []
    for state in range(0, 4000, 80):
        got = heads.logits(head, state, k)
        check_largest(heads.logits("int8", state), got, k, heads.vocab_size)
        read.append(heads.candidates(head))
    if k == 1:
        assert np.median(read) < heads.vocab_size / 20  # the low plane stays unread


@each_head
def test_all_logits_are_those_of_the_int8_head(head):
    for n, k in [(1, 7), (33, 64), (500, 65), (257, 576)]:
        heads = random_heads(n, k)
        for state in range(min(n, 5)):
            assert heads.logits(head, state).tobytes() == heads.logits("int8", state).tobytes()


@each_head
@pytest.mark.parametrize("seed", range(12))
def test_any_shape_and_any_k_gives_the_largest_logits(head, seed):
    rng = np.random.default_rng(seed)
    n, k = int(rng.integers(1, 501)), int(rng.integers(1, 700))
    heads = random_heads(n, k, seed)
    for top_k in (1, 2, int(rng.integers(1, n + 1)), n, n + 7):
        limit = int(rng.integers(1, n + 1))
        state = int(rng.integers(n))
        got = heads.logits(head, state, top_k, limit)
        check_largest(heads.logits("int8", state), got, top_k, limit)


@each_head
def test_ids_outside_the_vocabulary_do_not_compete(head):
    rng = np.random.default_rng(4)
    codes = rng.integers(-20, 21, (600, 64)).astype(np.int8)
    codes[500:] = 127  # far above all others
    heads = Heads(codes, np.ones(600), np.ones((600, 64)))
    got = heads.logits(head, 0, 3, 500)
    check_largest(heads.logits("int8", 0), got, 3, 500)
    assert np.sum(got[:500] > -np.inf) < 125


@each_head
def test_equal_logits_are_all_among_the_largest(head):
    rng = np.random.default_rng(5)
    codes = rng.integers(-60, 61, (900, 128)).astype(np.int8)
    codes[100:130] = codes[7] = 100  # 31 rows tie for the first place
    heads = Heads(codes, np.ones(900), np.ones((900, 128)))
    got = heads.logits(head, 0, 2)
    assert np.flatnonzero(got == got.max()).tolist() == [7, *range(100, 130)]


@each_head
@pytest.mark.parametrize("norm", [0.0, 3e38])  # 3e38: the state overflows to infinity
def test_states_of_zeros_or_beyond_all_numbers_give_all_logits(head, norm):
    rng = np.random.default_rng(6)
    codes = rng.integers(-99, 99, (400, 64)).astype(np.int8)
    heads = Heads(codes, np.ones(400), rng.normal(0, 1, (400, 64)), norm=norm)
    got, expected = heads.logits(head, 0, 1), heads.logits("int8", 0)
    assert np.array_equal(got, expected, equal_nan=True)
    assert heads.candidates(head) == 400


@each_head
def test_logits_beyond_all_numbers_keep_the_promise(head):
    codes = np.random.default_rng(8).integers(-99, -9, (400, 64)).astype(np.int8)
    heads = Heads(codes, np.full(400, 3e38), np.ones((400, 64)))
    assert (heads.logits("int8", 0) == -np.inf).all()
    check_largest(heads.logits("int8", 0), heads.logits(head, 0, 3), 3, 400)


@each_head
def test_a_state_that_is_not_a_number_keeps_the_promise(head):
    states = np.random.default_rng(6).normal(0, 1, (400, 64))
    states[0, 5], states[1, 5] = np.inf, np.nan
    codes = np.random.default_rng(7).integers(-99, 99, (400, 64)).astype(np.int8)
    heads = Heads(codes, np.ones(400), states)
    for state in range(2):
        check_largest(heads.logits("int8", state), heads.logits(head, state, 3), 3, 400)


@each_head
def test_threads_and_instruction_sets_leave_the_same_logits(head, isa):
    one, many = random_heads(1500, 130), random_heads(1500, 130, threads=5)
    for state in range(0, 1500, 300):
        assert one.logits(head, state, 5).tobytes() == many.logits(head, state, 5).tobytes()


@each_head
def test_a_batch_gives_each_sequence_the_logits_that_it_has_alone(head):
    heads = random_heads(1500, 130)
    decoder = heads.decoders[head]
    for size in (2, 8):
        ids = [np.array([i], np.int32) for i in range(size)]
        together = decoder.forward(ids, [decoder.new_cache(1) for _ in ids], top_k=5)
        alone = np.stack([heads.logits(head, i, 5) for i in range(size)])
        assert together.tobytes() == alone.tobytes()
    ids = [np.array([i], np.int32) for i in range(9)]  # more than planes are made for
    together = decoder.forward(ids, [decoder.new_cache(1) for _ in ids], top_k=5)
    assert np.isfinite(together).all()


def rows_on_the_bound(split_bits: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Two rows of equal high planes that differ in the low plane as much as can be, and a state.

    By the high plane alone both score alike. Row 1 has the largest low codes where the state is
    positive and the smallest where it is negative, row 0 the other way round.
    """
    state = np.where(np.arange(k) % 2 == 0, 1.0, -1.0)
    most = (1 << split_bits) - 1
    high = np.full(k, 64 & ~most)
    up = state > 0
    codes = np.stack([high + np.where(up, 0, most), high + np.where(up, most, 0)])
    return codes.astype(np.int8), state


def test_six_and_two_holds_for_rows_that_sit_on_the_bound():
    for k in (64, 192, 576, 1024):
        pair, state = rows_on_the_bound(2, k)
        codes = np.repeat(pair[:1], 400, axis=0)
        codes[123] = pair[1]  # its low plane adds all that the bound allows
        heads = Heads(codes, np.ones(400), np.repeat(state[None], 400, axis=0))
        assert heads.logits("int8", 0).argmax() == 123
        assert heads.logits("6+2", 0, 1).argmax() == 123


@pytest.mark.parametrize(("rival", "read"), [(96, True), (97, False)])
def test_six_and_two_reads_a_row_down_to_its_bound(rival, read):
    """Its bound is 96: it may tie with an exact logit of 96, so it is read, but not with 97."""
    k = 64
    pair, state = rows_on_the_bound(2, k)
    codes = np.zeros((400, k), np.int8)
    codes[3, 0], codes[200] = rival, pair[0]
    assert pair[1].astype(int) @ state == 96  # the best that a row with this high plane can have
    heads = Heads(codes, np.ones(400), np.repeat(state[None], 400, axis=0))
    got = heads.logits("6+2", 0, 1)
    assert got.argmax() == heads.logits("int8", 0).argmax() == 3
    assert (got[200] > -np.inf) == read


def test_five_and_three_can_be_made_to_miss():
    """Its bound is statistical: rows built against it lose their place (docs/head.md)."""
    k = 2560
    pair, state = rows_on_the_bound(3, k)
    codes = np.zeros((400, k), np.int8)
    codes[123] = pair[1]  # scores 3.5 K = 8960, where 8 sigma are 28 sqrt(K) = 1417
    codes[5] = 64
    codes[5, 0 : 2 * 1024 : 2] = 72  # scores 8192, all of it by the high plane
    heads = Heads(codes, np.ones(400), np.repeat(state[None], 400, axis=0))
    assert heads.logits("int8", 0).argmax() == 123
    assert heads.logits("5+3", 0, 1).argmax() == 5
    assert heads.logits("6+2", 0, 1).argmax() == 123


def test_a_two_plane_head_counts_the_bytes_that_it_reads():
    heads = random_heads(3200, 256)
    high, low = 3200 * (192 + 8), 64
    decoder = heads.decoders["6+2"]
    assert decoder.bytes_per_token()["head"] == high  # nothing has run
    heads.logits("6+2", 0, 1)
    read = heads.candidates("6+2")
    assert 0 < read < 800
    assert decoder.bytes_per_token()["head"] == high + read * (192 + low)
    heads.logits("6+2", 0)
    assert heads.candidates("6+2") == 3200
    assert decoder.bytes_per_token()["head"] == 3200 * (192 + low + 4)


@pytest.mark.parametrize(
    ("scale", "expected"), [(-1.0, "expected 0 or more for head 6\\+2, got -1 at 0")]
)
def test_a_head_that_has_no_planes_is_refused(scale, expected):
    with pytest.raises(ValueError, match=expected):
        Heads(np.zeros((2, 64), np.int8), np.full(2, scale), np.ones((2, 64)))
