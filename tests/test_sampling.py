"""Sampling: against a slow reference in plain Python, by distribution, and its refusals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from bitinfer.errors import CheckpointError
from bitinfer.runtime import exp
from bitinfer.sampling import SamplingParams, candidates, greedy, make_sampler


def reference(logits: np.ndarray, params: SamplingParams) -> list[int]:
    """Ids that SamplingParams' steps 2 to 4 leave, in order; one token at a time, no NumPy sums."""
    largest = max(logits)
    order = sorted(range(len(logits)), key=lambda i: (-logits[i], i))
    temperature = np.float32(params.temperature)
    weights = {i: float(exp(np.array([(logits[i] - largest) / temperature]))[0]) for i in order}
    total_order = sorted(order)
    if params.top_k:
        order = total_order = order[: params.top_k]
    if params.top_p < 1:
        total = 0.0
        for i in total_order:
            total += weights[i]
        kept, running = [], 0.0
        for i in order:
            kept.append(i)
            running += weights[i]
            if running >= params.top_p * total:
                break
        order = kept
    return [i for i in order if weights[i] >= params.min_p]


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.sampled_from([-3.0, -1.0, 0.0, 0.25, 1.0, 2.0, 2.5]), min_size=1, max_size=30),
    st.sampled_from([0.3, 1.0, 2.0]),
    st.integers(0, 35),
    st.sampled_from([0.0, 0.3, 0.9, 0.999, 1.0]),
    st.sampled_from([0.0, 0.1, 0.5, 1.0]),
)
def test_candidates_equal_the_reference_with_many_ties(values, temperature, k, p, min_p) -> None:
    logits = np.array(values, np.float32)
    params = SamplingParams(temperature=temperature, top_k=k, top_p=p, min_p=min_p)
    ids, weights = candidates(logits, params)
    found = list(range(len(logits))) if ids is None else ids.tolist()
    expected = reference(logits, params)
    if ids is None or k >= len(logits):
        assert sorted(found) == sorted(expected)
    else:
        assert found == expected
    assert len(weights) == len(found)


@pytest.mark.parametrize("top_p", [0.5, 0.99, 0.99999])
def test_nucleus_of_a_large_vocabulary_equals_the_reference(top_p) -> None:
    logits = np.random.default_rng(5).normal(0, 2, 5000).astype(np.float32).round(2)
    params = SamplingParams(temperature=1.0, top_p=top_p)
    ids, _ = candidates(logits, params)
    assert ids is not None
    assert ids.tolist() == reference(logits, params)


def test_greedy_takes_the_lowest_id_among_equals() -> None:
    logits = np.array([0, 3, 1, 3], np.float32)
    assert greedy(logits) == 1
    assert make_sampler(SamplingParams(temperature=0.0, seed=1))(logits) == 1


def test_one_candidate_is_always_taken() -> None:
    logits = np.array([0, 1, 5, 2], np.float32)
    for options in ({"top_k": 1}, {"top_p": 0.0}, {"min_p": 1.0}):
        sample = make_sampler(SamplingParams(temperature=1.0, seed=2, **options))
        assert {sample(logits) for _ in range(50)} == {2}


# 99.99 % points of chi-square by degrees of freedom: a correct sampler fails one seed in 10,000,
# and these seeds are fixed.
_CHI_SQUARE = {3: 21.11, 7: 29.88}


@pytest.mark.parametrize(
    ("options", "kept"),
    [({}, range(8)), ({"top_k": 4}, range(4)), ({"min_p": 0.3}, range(4)), ({"top_p": 0.8}, None)],
)
def test_draws_follow_the_softmax_of_what_is_kept(options, kept) -> None:
    logits = -0.3 * np.arange(8, dtype=np.float32)
    temperature, draws = 0.9, 20_000
    shares = [math.exp(float(z) / temperature) for z in logits]
    if kept is None:  # top_p = 0.8: shares are descending
        kept = range(next(n for n in range(1, 9) if sum(shares[:n]) >= 0.8 * sum(shares)))
    sample = make_sampler(SamplingParams(temperature=temperature, seed=11, **options))
    counts = np.bincount([sample(logits) for _ in range(draws)], minlength=8)
    assert set(np.flatnonzero(counts)) == set(kept)
    total = sum(shares[i] for i in kept)
    expected = [draws * shares[i] / total for i in kept]
    chi_square = sum((counts[i] - e) ** 2 / e for i, e in zip(kept, expected, strict=True))
    assert chi_square < _CHI_SQUARE[3 if len(kept) <= 4 else 7]


def test_same_seed_same_tokens_and_other_seed_others() -> None:
    logits = np.zeros(1000, np.float32)

    def draw(seed: int | None) -> list[int]:
        sample = make_sampler(SamplingParams(temperature=1.0, seed=seed))
        return [sample(logits) for _ in range(20)]

    assert draw(7) == draw(7)
    assert draw(7) != draw(8)
    assert draw(None) != draw(None)


def test_seeded_tokens_are_the_same_on_every_machine() -> None:
    sample = make_sampler(SamplingParams(temperature=1.0, seed=42))
    logits = np.linspace(-2, 2, 100).astype(np.float32)
    drawn = [sample(logits) for _ in range(8)]
    uniforms = np.random.Philox(key=42).random_raw(8) >> 11
    weights = exp(logits - logits.max()).astype(np.float64)
    running, expected = np.cumsum(weights), []
    for bits in uniforms:
        bound = int(bits) * 2.0**-53 * running[-1]
        expected.append(next(i for i, s in enumerate(running) if s > bound))
    assert drawn == expected


def test_logits_are_not_modified() -> None:
    logits = np.array([1, 2, 3], np.float32)
    make_sampler(SamplingParams(temperature=0.5, top_k=2, top_p=0.9, seed=1))(logits)
    assert logits.tolist() == [1, 2, 3]


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_without_a_largest_number_are_refused(value, temperature) -> None:
    sample = make_sampler(SamplingParams(temperature=temperature))
    with pytest.raises(CheckpointError, match="finite largest value"):
        sample(np.array([0, value, 1], np.float32))
