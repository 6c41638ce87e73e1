"""Speculative decoding: the tokens, records and caches of plain decoding, whatever is drafted."""

from __future__ import annotations

import itertools
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from checkpoints import LLAMA, tiny_checkpoint

from bitinfer.engine import Engine
from bitinfer.generate import generate_step
from bitinfer.prefix_cache import PrefixCache
from bitinfer.sampling import Sampler, SamplingParams, greedy
from bitinfer.speculation import DraftModel, Pace, PromptLookup, Speculator

LENGTH = 60  # tokens of a reply
HOT = 2.5  # a temperature at which many tokens have a chance

SAMPLING = {
    "greedy": {"temperature": 0.0},
    "sampled": {"temperature": 0.9, "top_k": 20, "top_p": 0.9, "seed": 7},
    "whole distribution": {"temperature": 1.3, "seed": 8},
    "looking back": {
        "temperature": 0.6,
        "seed": 9,
        "repetition_penalty": 1.2,
        "frequency_penalty": 0.3,
        "dry_multiplier": 0.8,
        "logit_bias": {3: 2.0, 5: float("-inf")},
    },
    "two random numbers": {"temperature": 0.8, "seed": 10, "xtc_probability": 0.5},
}


CONFIG = {**LLAMA, "vocab_size": 101, "max_position_embeddings": 200, "tie_word_embeddings": True}


def make_engine(seed: int = 0) -> Engine:
    with TemporaryDirectory() as folder:
        checkpoint = tiny_checkpoint(Path(folder), CONFIG, seed=seed)
        return Engine.load(checkpoint, num_threads=1, weights="copy")


ENGINE, OTHER = make_engine(), make_engine(1)
PROMPT = [1, 5, 9, 5, 9, 30, 31, 5, 9]


class Always(Pace):
    """Drafts so many tokens whenever there is room."""

    def __init__(self, count: int) -> None:
        super().__init__([0.5] * 4)
        self._count = count

    def length(self, outlook, most):
        return min(self._count, most)

    def learn(self, outlook, drafted, accepted):
        pass

    def time(self, drafted, seconds):
        pass


class Told:
    """Drafts what follows in a text that is given; every ``wrong``-th token is another."""

    def __init__(self, text, wrong: int = 0) -> None:
        self._text = [(t + 1) % 101 if wrong and n % wrong == 0 else t for n, t in enumerate(text)]
        self._at = 0

    def extend(self, token_ids):
        self._at += len(token_ids)

    def outlook(self):
        return 0

    def draft(self, count):
        return self._text[self._at :][:count]

    def close(self):
        pass


def make_sampler(name: str) -> Sampler:
    params = SamplingParams(**SAMPLING[name])
    return Sampler(params, prompt_ids=PROMPT, num_logprobs=2)


def run(name: str, make_source=None, count: int = 4, tokens: int = LENGTH, capacity=None):
    """(ids, logprobs, what the cache makes of a next token, speculator) of a generation."""
    sampler, cache = make_sampler(name), ENGINE.new_cache(capacity)
    source = make_source(sampler) if make_source else None
    speculator = Speculator(source, Always(count)) if source else None
    steps = generate_step(ENGINE, PROMPT, cache, sampler, 90, speculator=speculator)
    ids = list(itertools.islice(steps, tokens))
    steps.close()
    assert cache.length == len(PROMPT) + len(ids) - 1
    after = None if capacity else ENGINE.forward([[17, 4]], [cache], logits="all")
    return ids, sampler.logprobs, after, speculator


def assert_same(one, other) -> None:
    assert one[:2] == other[:2]
    assert (one[2] == other[2]).all()


def draft_model(engine: Engine):
    return lambda sampler: DraftModel(PrefixCache(engine), PROMPT, sampler.guess, 90)


SOURCES = {
    "n-grams": lambda _: PromptLookup(PROMPT),
    "the same model": draft_model(ENGINE),
    "another model": draft_model(OTHER),
    "nonsense": lambda _: Told([100, 0] * LENGTH),
}


@pytest.mark.parametrize("count", [1, 4, 8])
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("name", SAMPLING)
def test_tokens_records_and_cache_are_those_of_plain_decoding(name, source, count) -> None:
    assert_same(run(name, SOURCES[source], count), run(name))


@pytest.mark.parametrize("wrong", [0, 1, 2, 3, 7])
def test_drafts_that_are_right_save_runs_and_wrong_ones_change_nothing(wrong) -> None:
    plain = run("sampled")
    drafted = run("sampled", lambda _: Told(plain[0], wrong))
    assert_same(drafted, plain)
    speculator = drafted[3]
    if wrong == 0:
        assert speculator.accepted == LENGTH - LENGTH // 5
    if wrong == 1:
        assert speculator.accepted == 0


@pytest.mark.parametrize("tokens", range(1, 14))
def test_a_reply_that_ends_amid_a_draft_leaves_the_cache_of_plain_decoding(tokens) -> None:
    plain = run("greedy")
    drafted = run("greedy", lambda _: Told(plain[0]), 8, tokens)
    assert_same(drafted, run("greedy", tokens=tokens))


@pytest.mark.parametrize("room", range(1, 12))
@pytest.mark.parametrize("source", ["n-grams", "the same model"])
def test_full_context_ends_the_reply_at_the_same_token(room, source) -> None:
    capacity = len(PROMPT) + room
    plain = run("greedy", capacity=capacity)
    assert len(plain[0]) == room + 1
    assert run("greedy", SOURCES[source], 8, capacity=capacity)[0] == plain[0]


def test_the_same_model_drafts_what_is_chosen_also_at_random() -> None:
    for name in ("greedy", "sampled", "whole distribution", "two random numbers"):
        speculator = run(name, SOURCES["the same model"])[3]
        assert speculator.accepted == speculator.drafted > LENGTH // 2


def test_draft_model_serves_the_next_generation_from_its_cache() -> None:
    caches = PrefixCache(OTHER)
    for _ in range(2):
        lease = caches.lend(PROMPT * 3)
        held = lease.cached
        lease.release([])
        run("greedy", lambda s: DraftModel(caches, PROMPT, s.guess, 90))
    assert held == len(PROMPT)


def test_draft_model_catches_up_with_a_long_prompt_in_chunks() -> None:
    engine = make_engine(1)
    engine.prefill_chunk = 16
    source = DraftModel(PrefixCache(engine), [*range(50)], lambda row, _: greedy(row), 90)
    assert [source.outlook() for _ in range(4)] == [None, None, None, 0]
    expected = make_engine(1).logits([*range(50)])[-1, :90].argmax()
    assert source.draft(1) == [expected]


def test_draft_model_near_the_end_of_its_context_drafts_no_more() -> None:
    source = DraftModel(PrefixCache(OTHER), [5] * 192, lambda row, _: greedy(row), 90)
    assert source.outlook() == 0
    source.extend([5])
    assert source.outlook() is None


def joint_probabilities(first_tokens: int) -> np.ndarray:
    """Exact probability of each pair of tokens after ``PROMPT`` at the temperature ``HOT``."""

    def softmax(row):
        weights = np.exp(np.float64(row - row.max()) / HOT)
        return weights / weights.sum()

    first = softmax(ENGINE.logits(PROMPT)[-1, :first_tokens])
    rows = [softmax(ENGINE.logits([*PROMPT, t])[-1, :first_tokens]) for t in range(first_tokens)]
    return first[:, None] * np.array(rows)


FEW, RUNS = 12, 1500  # tokens that may be chosen; generations
PAIRS = [i for t in range(FEW) for i in (PROMPT[-1], t, (t + 2) % FEW)]


@pytest.mark.parametrize(
    ("first_seed", "make_source"),
    [
        (0, lambda _: PromptLookup([*PAIRS, *PROMPT])),
        (RUNS, lambda sampler: DraftModel(PrefixCache(OTHER), PROMPT, sampler.guess, FEW)),
        (2 * RUNS, lambda _: Told([8] * 9)),
    ],
    ids=["n-grams", "another model", "one token"],
)
def test_drafts_leave_the_distribution_as_it_is(first_seed, make_source) -> None:
    """Pearson's chi-squared test of the first two tokens against their exact probabilities."""
    counts = np.zeros((FEW, FEW))
    accepted = 0
    for seed in range(first_seed, first_seed + RUNS):
        sampler = Sampler(SamplingParams(temperature=HOT, seed=seed))
        speculator = Speculator(make_source(sampler), Always(1))
        cache = ENGINE.new_cache(40)
        steps = generate_step(ENGINE, PROMPT, cache, sampler, FEW, speculator=speculator)
        counts[next(steps), next(steps)] += 1
        steps.close()
        accepted += speculator.accepted
    assert 0.05 * RUNS < accepted < 0.95 * RUNS
    expected = RUNS * joint_probabilities(FEW).reshape(-1)
    order = np.argsort(expected)
    rare = np.cumsum(expected[order]) < 5  # too rare for the test: counted as one
    seen = counts.reshape(-1)[order]
    seen = np.append(seen[~rare], seen[rare].sum())
    expected = np.append(expected[order][~rare], expected[order][rare].sum())
    chi_squared = ((seen - expected) ** 2 / expected).sum()
    freedom = len(seen) - 1
    # Wilson and Hilferty: (chi2 / k)^(1/3) is normal, mean 1 - 2/(9k), variance 2/(9k)
    z = ((chi_squared / freedom) ** (1 / 3) - 1 + 2 / (9 * freedom)) / np.sqrt(2 / (9 * freedom))
    assert z < 3.1  # a chance of 1 in 1000 if the distributions are the same


def test_lookup_follows_the_text_where_it_stood_before() -> None:
    lookup = PromptLookup([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 50])
    assert lookup.outlook() is None
    lookup.extend([2, 3])
    assert lookup.outlook() == 0
    assert lookup.draft(4) == [4, 5, 6, 7]
    lookup.extend([4, 5, 6])
    assert lookup.outlook() == 2
    assert lookup.draft(2) == [7, 8]
    lookup.extend([60])
    assert lookup.outlook() is None


def test_lookup_takes_the_latest_place_and_the_longer_match() -> None:
    latest = PromptLookup([1, 2, 3, 5, 1, 2, 7, 4, 1, 2])
    assert latest.outlook() == 0
    assert latest.draft(1) == [7]
    longer = PromptLookup([8, 9, 1, 2, 3, 4, 1, 2, 7, 8, 9, 1, 2])
    assert longer.outlook() == 1
    assert longer.draft(1) == [3]


def test_lookup_repeats_a_short_period() -> None:
    lookup = PromptLookup([1, 2, 3, 1, 2, 3])
    assert lookup.outlook() is not None
    assert lookup.draft(8) == [1, 2, 3, 1, 2, 3, 1, 2]


def test_lookup_is_the_same_in_one_piece_and_token_by_token(rng) -> None:
    text = rng.integers(0, 4, 300).tolist()
    grown = PromptLookup(text[:1])
    for n in range(1, len(text)):
        grown.outlook()
        grown.extend([text[n]])
        assert (grown.outlook() is None) == (PromptLookup(text[: n + 1]).outlook() is None)
    places = {tuple(text[n - 2 : n]) for n in range(2, len(text))}
    assert grown.outlook() is not None or tuple(text[-2:]) not in places
