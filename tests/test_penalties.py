"""Penalties on what occurred: against the slow reference, token by token, and their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from sampling_reference import changed

from bitinfer.sampling import SamplingParams
from bitinfer.sampling.params import DRY_LONGEST
from bitinfer.sampling.penalties import Dry, TokenHistory, penalize_occurrences

V = 6
BREAKERS = {4}


def penalized(
    logits: np.ndarray, params: SamplingParams, prompt: list[int], reply: list[int]
) -> np.ndarray:
    """What the package makes of ``logits`` after the reply's tokens came one by one."""
    prompt_ids = np.array(prompt, np.int32)
    history, dry = TokenHistory(prompt_ids), Dry(params, prompt_ids, BREAKERS.__contains__)
    for token_id in reply:
        history.append(token_id)
        dry.add(history.ids)
    result = logits.copy()
    penalize_occurrences(result, params, history)
    if params.dry_multiplier:
        dry.penalize(result, history.ids)
    return result


tokens = st.lists(st.integers(0, V - 1), max_size=25)


@settings(max_examples=300, deadline=None)
@given(
    prompt=tokens.filter(len),
    reply=tokens,
    options=st.fixed_dictionaries(
        {
            "repetition_penalty": st.sampled_from([1.0, 1.3, 0.7]),
            "repetition_window": st.sampled_from([0, 1, 5, 100]),
            "presence_penalty": st.sampled_from([0.0, 0.5, -1.0]),
            "frequency_penalty": st.sampled_from([0.0, 0.25, -0.1]),
            "dry_multiplier": st.sampled_from([0.0, 0.8]),
            "dry_base": st.sampled_from([1.0, 1.5]),
            "dry_allowed_length": st.sampled_from([1, 2, 4]),
            "dry_window": st.sampled_from([0, 2, 7, 100]),
        }
    ),
)
def test_penalties_equal_the_reference(prompt, reply, options) -> None:
    logits = np.linspace(-2, 2, V).astype(np.float32)
    params = SamplingParams(**options)
    expected = changed(logits, params, [*prompt, *reply], len(prompt), BREAKERS)
    assert penalized(logits, params, prompt, reply).tolist() == expected.tolist()


def test_neutral_values_change_nothing() -> None:
    logits = np.linspace(-2, 2, V).astype(np.float32)
    same = penalized(logits, SamplingParams(), [1, 2, 1, 2], [1, 2])
    assert same.tolist() == logits.tolist()


def test_presence_and_frequency_look_at_the_reply_only() -> None:
    params = SamplingParams(presence_penalty=1.0, frequency_penalty=0.5)
    zeros = np.zeros(V, np.float32)
    assert penalized(zeros, params, [0, 0, 1], [1, 2, 2]).tolist() == [0, -1.5, -2, 0, 0, 0]


def test_repetition_looks_at_the_prompt_too_and_lowers_either_sign() -> None:
    params = SamplingParams(repetition_penalty=2.0)
    logits = np.array([1, -1, 1, -1, 0, 0], np.float32)
    assert penalized(logits, params, [0], [1]).tolist() == [0.5, -2, 1, -1, 0, 0]


def test_dry_penalizes_the_token_that_would_repeat_the_longest_sequence() -> None:
    # "0 1 2 3 ... 0 1 2" was followed by 3; "2" alone was followed by 5 too.
    params = SamplingParams(dry_multiplier=1.0, dry_base=2.0, dry_allowed_length=2)
    result = penalized(np.zeros(V, np.float32), params, [0, 1, 2, 3, 2, 5, 0, 1, 2], [])
    assert result.tolist() == [0, 0, 0, -2, 0, 0]  # 1.0 * 2 ** (3 - 2)


def test_no_sequence_crosses_a_breaker() -> None:
    params = SamplingParams(dry_multiplier=1.0, dry_base=2.0, dry_allowed_length=1)
    result = penalized(np.zeros(V, np.float32), params, [0, 4, 2, 3, 0, 4, 2], [])
    assert result.tolist() == [0, 0, 0, -1, 0, 0]  # of "0 4 2" only "2" counts


@pytest.mark.parametrize("prompt_length", [DRY_LONGEST + 7, 3 * DRY_LONGEST])
def test_dry_stays_finite_and_counts_only_so_far(prompt_length) -> None:
    params = SamplingParams(dry_multiplier=1.0, dry_base=1.001)
    result = penalized(np.zeros(V, np.float32), params, [1] * prompt_length, [1] * 5)
    assert result[1] == np.float32(-(1.001 ** (DRY_LONGEST - 2)))
    steep = SamplingParams(dry_multiplier=100.0, dry_base=10.0)
    result = penalized(np.zeros(V, np.float32), steep, [1] * prompt_length, [])
    assert np.isfinite(result).all()
    assert result[1] < -1e20


def test_history_grows_and_keeps_what_it_holds() -> None:
    history = TokenHistory(np.array([], np.int32))
    for token_id in range(300):
        history.append(token_id)
    assert history.ids.tolist() == list(range(300))
    assert history.num_prompt == 0
    with pytest.raises(ValueError, match="read-only"):
        history.ids[0] = 1
