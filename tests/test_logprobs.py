"""Log-probabilities: against plain Python; they are the model's own whatever the settings."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bitinfer.sampling import Sampler, SamplingParams, TokenLogprob
from bitinfer.sampling.logprobs import Logprobs


def test_logprobs_equal_the_definition() -> None:
    logits = np.random.default_rng(1).normal(0, 4, 500).astype(np.float32)
    z_max = float(max(logits))
    log_total = math.log(math.fsum(math.exp(float(z) - z_max) for z in logits))
    # exp is a float32 here: relative error 2^-24 each, so as much in the sum and in its logarithm
    # (2^-23 with the rounding of z - z_max); the float32 z - z_max is off by 2^-24 of up to 32.
    bound = 2**-23 + 32 * 2**-24
    log = Logprobs(logits)
    for i in range(500):
        found = log.of(i, 0).logprob
        assert abs(found - (float(logits[i]) - z_max - log_total)) < bound


def test_likeliest_come_first_and_ties_by_id() -> None:
    record = Logprobs(np.array([0, 2, 1, 2, -np.inf], np.float32)).of(4, 3)
    assert record.token_id == 4
    assert record.logprob == -math.inf
    assert [token_id for token_id, _ in record.top] == [1, 3, 2]
    assert record.top[0][1] == record.top[1][1] > record.top[2][1]


def test_of_a_uniform_distribution_each_is_the_logarithm_of_its_size() -> None:
    record = Logprobs(np.full(1000, 3, np.float32)).of(7, 0)
    assert record == TokenLogprob(7, -math.log(1000), ())


def test_more_are_asked_for_than_there_are() -> None:
    assert len(Logprobs(np.zeros(3, np.float32)).of(0, 100).top) == 3


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0.0},
        {"temperature": 5.0, "top_k": 2},
        {"temperature": 1.0, "logit_bias": {2: 50.0}, "repetition_penalty": 2.0},
    ],
)
def test_settings_do_not_change_the_logprobs_that_are_recorded(options) -> None:
    logits = np.array([1, 2, 3, 4], np.float32)
    sample = Sampler(SamplingParams(seed=3, **options), prompt_ids=[3], num_logprobs=2)
    chosen = [sample(logits) for _ in range(3)]
    assert sample.logprobs == [Logprobs(logits).of(token_id, 2) for token_id in chosen]


def test_nothing_is_recorded_unless_asked_for() -> None:
    sample = Sampler(SamplingParams())
    sample(np.array([1, 2], np.float32))
    assert sample.logprobs == []
