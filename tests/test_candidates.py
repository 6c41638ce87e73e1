"""Which tokens may be drawn: against the slow reference, with ties, masks, large vocabularies."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from sampling_reference import kept

from bitinfer.sampling import SamplingParams
from bitinfer.sampling.candidates import argmax, candidates, largest


def found(logits: np.ndarray, params: SamplingParams, xtc: bool = False) -> dict[int, float]:
    ids, weights = candidates(params).weights(logits, xtc)
    return dict(zip(ids.tolist(), weights.tolist(), strict=True))


@settings(max_examples=400, deadline=None)
@given(
    values=st.lists(
        st.sampled_from([-np.inf, -3.0, -1.0, 0.0, 0.25, 1.0, 2.0, 2.5]), min_size=1, max_size=30
    ),
    temperature=st.sampled_from([0.3, 1.0, 2.0]),
    top_k=st.integers(0, 35),
    typical_p=st.sampled_from([0.0, 0.2, 0.9, 1.0]),
    top_p=st.sampled_from([0.0, 0.3, 0.9, 0.999, 1.0]),
    min_p=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    xtc_threshold=st.sampled_from([None, 0.0, 0.05, 0.1, 0.5]),
)
def test_what_is_left_equals_the_reference_with_many_ties(values, xtc_threshold, **options) -> None:
    logits = np.array([*values, 0.5], np.float32)
    params = SamplingParams(**options, xtc_threshold=xtc_threshold or 0.0)
    xtc = xtc_threshold is not None
    assert found(logits, params, xtc) == kept(logits, params, xtc)


@pytest.mark.parametrize("share", [0.5, 0.99, 0.99999])
@pytest.mark.parametrize("rule", ["top_p", "typical_p"])
def test_nucleus_of_a_large_vocabulary_equals_the_reference(rule, share) -> None:
    logits = np.random.default_rng(5).normal(0, 2, 5000).astype(np.float32).round(2)
    params = SamplingParams(temperature=1.0, **{rule: share})
    assert found(logits, params, False) == kept(logits, params)


def test_everything_is_left_without_a_rule() -> None:
    assert list(found(np.array([1, 2, 3], np.float32), SamplingParams(temperature=1.0))) == [
        0,
        1,
        2,
    ]


def test_typical_may_leave_out_the_likeliest() -> None:
    # 0.4 and ten of 0.06: the entropy is 2.05, the surprise of the first 0.92, of the others 2.81
    logits = np.log(np.array([0.4] + [0.06] * 10)).astype(np.float32)
    assert list(found(logits, SamplingParams(temperature=1.0, typical_p=0.5))) == [*range(1, 10)]


def test_xtc_keeps_the_least_likely_of_the_top_choices() -> None:
    logits = np.log(np.array([0.2, 0.4, 0.3, 0.1])).astype(np.float32)
    params = SamplingParams(temperature=1.0, xtc_threshold=0.15)
    assert list(found(logits, params, True)) == [0, 3]


def test_xtc_leaves_a_single_top_choice_alone() -> None:
    logits = np.log(np.array([0.9, 0.05, 0.05])).astype(np.float32)
    params = SamplingParams(temperature=1.0, xtc_threshold=0.15)
    assert list(found(logits, params, True)) == [0, 1, 2]


@given(values=st.lists(st.integers(-3, 3), min_size=1, max_size=20), count=st.integers(1, 20))
def test_largest_are_in_order_and_ties_by_place(values, count) -> None:
    count = min(count, len(values))
    order = sorted(range(len(values)), key=lambda i: (-values[i], i))
    assert largest(np.array(values, np.float32), count).tolist() == order[:count]


def test_logits_are_not_modified() -> None:
    logits = np.array([1, 2, 3], np.float32)
    found(logits, SamplingParams(temperature=0.5, top_k=2, top_p=0.9, typical_p=0.9), True)
    assert logits.tolist() == [1, 2, 3]


@pytest.mark.parametrize("n", [1, 2, 15, 16, 17, 63, 64, 65, 127, 128, 129, 1000])
def test_argmax_is_the_first_of_the_largest(n, isa, rng) -> None:
    for values in (rng.normal(0, 3, n), rng.integers(-2, 3, n), np.full(n, -0.5)):
        logits = values.astype(np.float32)
        assert argmax(logits) == int(np.argmax(logits)), isa
        logits[rng.integers(0, n)] = -np.inf
        expected = int(np.argmax(logits))
        assert argmax(logits) == (expected if np.isfinite(logits[expected]) else -1), isa


@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf])
@pytest.mark.parametrize("place", [0, 15, 16, 63, 64, 98, 99])
def test_argmax_refuses_what_is_no_number(bad, place, isa) -> None:
    logits = np.zeros(100, np.float32)
    logits[place] = bad
    assert argmax(logits) == -1, isa
    assert candidates(SamplingParams(temperature=1.0)).draw(logits, 0.5, False) == -1, isa


@pytest.mark.parametrize("count", [1, 5, 16, 17, 100, 1000])
def test_largest_of_many_blocks_are_in_order_and_ties_by_place(count, isa, rng) -> None:
    values = rng.integers(-40, 40, 1000).astype(np.float32)
    order = sorted(range(1000), key=lambda i: (-values[i], i))
    assert largest(values, count).tolist() == order[:count], isa


def test_a_draw_takes_the_first_id_whose_running_sum_exceeds_the_share() -> None:
    logits = np.log(np.array([0.125, 0.5, 0.25, 0.125])).astype(np.float32)
    pick = candidates(SamplingParams(temperature=1.0))
    ids, weights = pick.weights(logits, False)
    sums = np.cumsum(weights.astype(np.float64))
    for uniform in (0.0, 0.1, 0.3, 0.62, 0.63, 0.9, 1 - 2.0**-53):
        expected = int(np.flatnonzero(sums > min(uniform * sums[-1], np.nextafter(sums[-1], 0)))[0])
        assert pick.draw(logits, uniform, False) == ids[expected]


def test_masked_logits_of_no_candidate_change_nothing(rng) -> None:
    pick = candidates(SamplingParams(temperature=0.8, top_k=5, typical_p=0.9, top_p=0.9, min_p=0.1))
    for _ in range(200):
        logits = rng.integers(-6, 6, 300).astype(np.float32)
        fifth = np.sort(logits)[-5]
        masked = np.where(logits >= fifth, logits, -np.inf).astype(np.float32)
        for xtc in (False, True):
            for uniform in (0.0, 0.4, 0.99):
                assert pick.draw(masked, uniform, xtc) == pick.draw(logits, uniform, xtc)
