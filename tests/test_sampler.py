"""``Sampler``: the order of the steps, distributions, seeds, hooks, refusals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sampling_reference import changed, chi_square_bound, kept

from bitinfer.errors import CheckpointError
from bitinfer.runtime import exp
from bitinfer.sampling import Sampler, SamplingParams, greedy

LOGITS = -0.3 * np.arange(8, dtype=np.float32)
PROMPT = [0, 1, 2, 0, 1]  # DRY at length 2: 2 would repeat


class Forbids:
    """A constraint that allows ``allowed`` only, and notes what it is told."""

    def __init__(self, allowed: set[int]) -> None:
        self.allowed, self.accepted = allowed, []

    def forbid(self, logits: np.ndarray) -> None:
        logits[[i for i in range(len(logits)) if i not in self.allowed]] = -np.inf

    def accept(self, token_id: int) -> None:
        self.accepted.append(token_id)


def test_greedy_takes_the_lowest_id_among_equals() -> None:
    logits = np.array([0, 3, 1, 3], np.float32)
    assert greedy(logits) == 1
    assert Sampler(SamplingParams(temperature=0.0, seed=1))(logits) == 1


@pytest.mark.parametrize("options", [{"top_k": 1}, {"top_p": 0.0}, {"min_p": 1.0}])
def test_one_candidate_is_always_taken(options) -> None:
    sample = Sampler(SamplingParams(temperature=1.0, seed=2, **options))
    assert {sample(np.array([0, 1, 5, 2], np.float32)) for _ in range(50)} == {2}


def expected_shares(params: SamplingParams) -> np.ndarray:
    """Probability of each of the 8 tokens, from the slow reference; XTC acts by its chance."""
    z = changed(LOGITS, params, PROMPT, len(PROMPT), set())
    shares = np.zeros(8)
    for xtc, chance in ((True, params.xtc_probability), (False, 1 - params.xtc_probability)):
        weights = kept(z, params, xtc)
        for token_id, weight in weights.items():
            shares[token_id] += chance * weight / math.fsum(weights.values())
    return shares


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0.5},
        {"temperature": 3.0},
        {"top_k": 4},
        {"top_p": 0.8},
        {"min_p": 0.3},
        {"typical_p": 0.6},
        {"repetition_penalty": 1.8},
        {"repetition_penalty": 1.8, "repetition_window": 2},
        {"dry_multiplier": 0.9, "dry_base": 2.0},
        {"xtc_probability": 0.4, "xtc_threshold": 0.12},
        {"logit_bias": {5: 1.2, 0: -math.inf}},
        {"top_k": 7, "typical_p": 0.95, "top_p": 0.9, "min_p": 0.1, "xtc_probability": 0.5},
    ],
)
def test_draws_follow_the_distribution_of_the_reference(options) -> None:
    params = SamplingParams(**{"temperature": 0.9, **options})
    draws = 2000  # each the first one of a seed of its own, since penalties look at what was drawn
    samplers = (Sampler(params.with_options(seed=seed), prompt_ids=PROMPT) for seed in range(draws))
    counts = np.bincount([sample(LOGITS) for sample in samplers], minlength=8)
    expected = draws * expected_shares(params)
    assert not counts[expected == 0].any()
    counts, expected = counts[expected > 0], expected[expected > 0]
    assert min(expected) > 5  # or chi-square is no good approximation
    assert np.sum((counts - expected) ** 2 / expected) < chi_square_bound(len(expected) - 1)


@pytest.mark.parametrize("name", ["presence_penalty", "frequency_penalty"])
def test_penalties_act_on_what_the_sampler_has_chosen(name) -> None:
    sample = Sampler(SamplingParams(**{name: 2.0}))
    assert [sample(LOGITS) for _ in range(8)][:4] == [0, 1, 2, 3]


def test_draws_of_one_sampler_follow_the_softmax() -> None:
    sample = Sampler(SamplingParams(temperature=0.9, seed=11))
    counts = np.bincount([sample(LOGITS) for _ in range(10_000)], minlength=8)
    expected = 10_000 * expected_shares(SamplingParams(temperature=0.9))
    assert np.sum((counts - expected) ** 2 / expected) < chi_square_bound(7)


def test_same_seed_same_tokens_and_other_seed_others() -> None:
    logits = np.zeros(1000, np.float32)

    def draw(seed: int | None) -> list[int]:
        sample = Sampler(SamplingParams(temperature=1.0, seed=seed))
        return [sample(logits) for _ in range(20)]

    assert draw(7) == draw(7)
    assert draw(7) != draw(8)
    assert draw(None) != draw(None)


def test_seeded_tokens_are_the_same_on_every_machine() -> None:
    sample = Sampler(SamplingParams(temperature=1.0, seed=42))
    logits = np.arange(100, dtype=np.float32) / 32
    drawn = [sample(logits) for _ in range(8)]
    weights = exp(logits - logits.max()).tolist()
    running, sums = 0.0, []
    for weight in weights:
        running += weight
        sums.append(running)
    uniforms = [(int(bits) >> 11) * 2.0**-53 for bits in np.random.Philox(key=42).random_raw(8)]
    assert drawn == [next(i for i, s in enumerate(sums) if s > u * running) for u in uniforms]
    # What this draws on x86-64 with NumPy 2: other machines and versions must draw the same.
    assert drawn == [93, 52, 95, 72, 70, 75, 52, 27]


def test_logits_are_not_modified() -> None:
    logits = np.array([1, 2, 3], np.float32)
    options = {"temperature": 0.5, "top_k": 2, "repetition_penalty": 2.0, "logit_bias": {0: 1}}
    sample = Sampler(SamplingParams(**options, dry_multiplier=1.0, seed=1), prompt_ids=[1])
    sample(logits)
    assert logits.tolist() == [1, 2, 3]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_constraint_decides_what_is_left_and_is_told_the_choice(temperature) -> None:
    constraint = Forbids({3, 5})
    sample = Sampler(
        SamplingParams(temperature=temperature, seed=1, logit_bias={0: 100}), constraint=constraint
    )
    chosen = [sample(LOGITS) for _ in range(20)]
    assert set(chosen) <= {3, 5}
    assert constraint.accepted == chosen


def test_steps_before_the_temperature_come_in_the_documented_order() -> None:
    class Notes(Forbids):
        def forbid(self, logits: np.ndarray) -> None:
            self.seen = logits.copy()  # the constraint comes last

    params = SamplingParams(
        logit_bias={0: 0.7, 2: -0.4},
        repetition_penalty=1.7,
        presence_penalty=0.3,
        frequency_penalty=0.11,
        dry_multiplier=0.9,
        dry_base=1.5,
    )
    notes, reply = Notes(set(range(8))), []
    logits = np.linspace(1, -1, 8).astype(np.float32)
    sample = Sampler(params, prompt_ids=PROMPT, constraint=notes, breaks={4}.__contains__)
    for _ in range(12):
        chosen = sample(logits)
        expected = changed(logits, params, [*PROMPT, *reply], len(PROMPT), {4})
        assert notes.seen.tolist() == expected.tolist()
        reply.append(chosen)
    assert len(set(reply)) > 3


def test_processor_sees_the_text_and_the_raw_logits_and_acts_first() -> None:
    seen = []

    def processor(token_ids: np.ndarray, logits: np.ndarray) -> None:
        seen.append((token_ids.tolist(), logits.tolist()))
        logits[:] = 0
        logits[6] = 1  # in place; then the bias wins

    sample = Sampler(SamplingParams(logit_bias={4: 5}), prompt_ids=[9, 8], processor=processor)
    assert [sample(LOGITS), sample(LOGITS)] == [4, 4]
    assert seen == [([9, 8], LOGITS.tolist()), ([9, 8, 4], LOGITS.tolist())]


def test_processor_may_return_other_logits_and_keep_its_own() -> None:
    own = np.zeros(8, np.float64)
    own[3] = 1
    sample = Sampler(SamplingParams(logit_bias={3: -5}), processor=lambda *_: own)
    assert sample(LOGITS) == 0
    assert own[3] == 1


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (np.zeros(7), r"expected to return float32 \(8,\) or None, got float64 \(7,\)"),
        (np.zeros(8, int), r"got int64 \(8,\)"),
        ("no", "got <U2"),
        (np.full(8, np.nan), "got NaN or inf"),
        (np.full(8, np.inf), "got NaN or inf"),
        (np.full(8, 1e300), "got NaN or inf"),  # too large for float32
    ],
)
def test_processor_that_returns_no_logits_is_refused(returned, said) -> None:
    sample = Sampler(SamplingParams(), processor=lambda *_: returned)
    with pytest.raises(ValueError, match=f"^logits_processor: .*{said}"):
        sample(LOGITS)


def test_error_of_a_processor_comes_through() -> None:
    def processor(token_ids: np.ndarray, logits: np.ndarray) -> None:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        Sampler(SamplingParams(), processor=processor)(LOGITS)


def test_settings_that_leave_no_token_are_refused() -> None:
    sample = Sampler(SamplingParams(logit_bias=dict.fromkeys(range(8), -math.inf)))
    with pytest.raises(ValueError, match="at least one token to be left"):
        sample(LOGITS)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("options", [{}, {"temperature": 1.0}, {"repetition_penalty": 2.0}])
def test_logits_without_a_largest_number_are_refused(value, options) -> None:
    with pytest.raises(CheckpointError, match="finite largest value"):
        Sampler(SamplingParams(**options))(np.array([0, value, 1], np.float32))


@pytest.mark.parametrize(
    ("options", "hooks", "most"),
    [
        ({}, {}, 1),
        ({"top_k": 40}, {}, 1),
        ({"temperature": 0.7, "top_k": 40, "top_p": 0.9, "xtc_probability": 0.5}, {}, 40),
        ({"temperature": 0.7, "top_p": 0.9}, {}, 0),
        ({"temperature": 0.7, "min_p": 0.1}, {}, 0),
        ({"top_k": 40, "temperature": 1.0}, {"num_logprobs": 0}, 0),
        ({}, {"processor": lambda ids, logits: None}, 0),
        ({}, {"constraint": Forbids({1})}, 0),
        ({"repetition_penalty": 1.1}, {}, 0),
        ({"dry_multiplier": 0.8}, {}, 0),
        ({"logit_bias": {3: 1.0}}, {}, 0),
    ],
)
def test_sampler_says_how_many_of_the_largest_logits_decide(options, hooks, most) -> None:
    assert Sampler(SamplingParams(**options), **hooks).most_candidates == most


@pytest.mark.parametrize("options", [{}, {"temperature": 1.0, "top_k": 4, "top_p": 0.95}])
def test_logits_that_do_not_decide_may_be_left_out(options, rng) -> None:
    params = SamplingParams(**options, seed=5)
    whole, partial = Sampler(params), Sampler(params)
    for _ in range(200):
        logits = rng.integers(-6, 6, 100).astype(np.float32)
        least = np.sort(logits)[-partial.most_candidates]
        left = np.where(logits >= least, logits, -np.inf).astype(np.float32)
        assert partial(left) == whole(logits)
