"""Which tokens may be drawn: against the slow reference, with ties, masks, large vocabularies."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from sampling_reference import kept

from bitinfer.sampling import SamplingParams
from bitinfer.sampling.candidates import candidates, largest


def found(logits: np.ndarray, params: SamplingParams, xtc: bool) -> dict[int, float]:
    ids, weights = candidates(logits, params, xtc)
    places = range(len(logits)) if ids is None else ids.tolist()
    return dict(zip(places, weights.tolist(), strict=True))


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
    ids, weights = candidates(np.array([1, 2, 3], np.float32), SamplingParams(temperature=1.0))
    assert ids is None
    assert len(weights) == 3


def test_typical_may_leave_out_the_likeliest() -> None:
    # 0.4 and ten of 0.06: the entropy is 2.05, the surprise of the first 0.92, of the others 2.81
    logits = np.log(np.array([0.4] + [0.06] * 10)).astype(np.float32)
    ids, _ = candidates(logits, SamplingParams(temperature=1.0, typical_p=0.5))
    assert ids is not None
    assert ids.tolist() == list(range(1, 10))


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
    candidates(logits, SamplingParams(temperature=0.5, top_k=2, top_p=0.9, typical_p=0.9), True)
    assert logits.tolist() == [1, 2, 3]
