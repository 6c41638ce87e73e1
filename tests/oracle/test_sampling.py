"""Sampling against transformers: the same tokens stay, the same logits are lowered."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers.generation import logits_process as theirs

from bitinfer.sampling import SamplingParams
from bitinfer.sampling.candidates import candidates
from bitinfer.sampling.penalties import TokenHistory, penalize_occurrences

ROWS = np.random.default_rng(7).normal(0, 3, (40, 3000)).astype(np.float32)
TEMPERATURE = 0.8


def stays(logits: NDArray[np.float32], *warpers: Any) -> list[int]:
    """Ids that transformers leaves after these, in order, behind the temperature."""
    ids, scores = torch.zeros((1, 1), dtype=torch.long), torch.from_numpy(logits)[None]
    for warper in (theirs.TemperatureLogitsWarper(TEMPERATURE), *warpers):
        scores = warper(ids, scores)
    return torch.isfinite(scores[0]).nonzero()[:, 0].tolist()


@pytest.mark.parametrize(
    ("options", "warper"),
    [
        ({"top_k": 40}, theirs.TopKLogitsWarper(40)),
        ({"top_p": 0.9}, theirs.TopPLogitsWarper(0.9)),
        ({"top_p": 0.3}, theirs.TopPLogitsWarper(0.3)),
        ({"min_p": 0.03}, theirs.MinPLogitsWarper(0.03)),
        ({"typical_p": 0.9}, theirs.TypicalLogitsWarper(0.9)),
        ({"typical_p": 0.2}, theirs.TypicalLogitsWarper(0.2)),
    ],
)
def test_the_same_tokens_stay(options, warper) -> None:
    params = SamplingParams(temperature=TEMPERATURE, **options)
    for logits in ROWS:
        ids, _ = candidates(params).weights(logits, False)
        assert ids.tolist() == stays(logits, warper)


def test_weights_are_their_probabilities() -> None:
    for logits in ROWS[:5]:
        _, weights = candidates(SamplingParams(temperature=TEMPERATURE)).weights(logits, False)
        expected = torch.softmax(torch.from_numpy(logits).double() / TEMPERATURE, 0).numpy()
        # A float32 division and exp: |s| <= 40 is off by 2^-24 of it, exp(s) by as much and 2^-23.
        found = weights / weights.astype(np.float64).sum()
        assert np.allclose(found, expected, rtol=2 * (40 * 2**-24 + 2**-23), atol=0)


@pytest.mark.parametrize("penalty", [1.3, 0.7])
def test_the_repetition_penalty_is_theirs(penalty) -> None:
    text = np.array([5, 7, 5, 2999, 0], np.int32)
    processor = theirs.RepetitionPenaltyLogitsProcessor(penalty)
    for logits in ROWS:
        found = logits.copy()
        params = SamplingParams(repetition_penalty=penalty)
        penalize_occurrences(found, params, TokenHistory(text))
        expected = processor(
            torch.from_numpy(text[None].astype(np.int64)), torch.from_numpy(logits)[None]
        )
        assert found.tolist() == expected[0].tolist()
