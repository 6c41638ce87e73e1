"""The generation loop and the replies it grows, with a scripted engine in place of a model."""

from __future__ import annotations

import itertools

import pytest
from scripted_engine import PROMPT, TOKENIZER, ScriptedCache, ScriptedEngine

from bitinfer.errors import ContextLengthError, PromptError
from bitinfer.generate import (
    Completion,
    Reply,
    StopRules,
    check_prompt,
    generate_many,
    generate_step,
)
from bitinfer.sampling import Sampler, SamplingParams, greedy


def complete(text_or_ids, *, capacity: int = 64, **rules) -> Completion:
    """What a model that says this text (for ever more "!" after it) generates."""
    ids = TOKENIZER.encode(text_or_ids) if isinstance(text_or_ids, str) else text_or_ids
    engine = ScriptedEngine([*ids, *TOKENIZER.encode("!" * 200)])
    rules = {"max_tokens": 50, "eos_token_ids": frozenset(TOKENIZER.eos_token_ids), **rules}
    reply = Reply(TOKENIZER, PROMPT, StopRules(**rules))
    for _ in generate_many(engine, PROMPT, ScriptedCache(capacity), [greedy], [reply]):
        pass
    return reply.completion


def test_prompt_is_run_in_chunks_and_tokens_one_by_one() -> None:
    engine = ScriptedEngine([7, 8, 9])
    steps = generate_step(engine, list(range(10, 20)), ScriptedCache(64), greedy)
    assert list(itertools.islice(steps, 3)) == [7, 8, 9]
    assert engine.calls == [
        ([10, 11, 12, 13], "none"),
        ([14, 15, 16, 17], "none"),
        ([18, 19], "last"),
        ([7], "last"),
        ([8], "last"),
    ]


def test_last_token_is_not_run() -> None:
    engine = ScriptedEngine([7, 8, 9])
    cache = ScriptedCache(64)
    assert list(itertools.islice(generate_step(engine, [1], cache, greedy), 2)) == [7, 8]
    assert cache.length == 2


@pytest.mark.parametrize("after", [0, 1, 2, 4])
def test_cancelled_generation_runs_the_model_no_more(after) -> None:
    engine = ScriptedEngine([7] * 9)
    steps = generate_step(
        engine,
        list(range(10, 20)),
        ScriptedCache(64),
        greedy,
        cancelled=lambda: len(engine.calls) >= after,
    )
    list(steps)
    assert len(engine.calls) == after


def test_ids_of_padding_rows_are_never_chosen() -> None:
    engine = ScriptedEngine([4000])
    assert next(generate_step(engine, [1], ScriptedCache(9), greedy, vocab_size=3999)) != 4000


def test_engine_is_told_how_many_logits_decide() -> None:
    told = []

    class Telling(ScriptedEngine):
        def forward(self, token_ids, caches, *, top_k=0, vocab_size=0, **options):
            told.append((top_k, vocab_size))
            return super().forward(token_ids, caches, **options)

    engine = Telling([7] * 9)
    sampler = Sampler(SamplingParams(temperature=1.0, top_k=3, seed=1))
    steps = generate_step(engine, [1], ScriptedCache(64), sampler, vocab_size=4000)
    list(itertools.islice(steps, 3))
    assert told == [(3, 4000)] * 3
    told.clear()
    list(itertools.islice(generate_step(engine, [1], ScriptedCache(64), greedy), 2))
    assert told == [(0, 0)] * 2  # a plain function may look at all


@pytest.mark.parametrize("eos", [2, 3])
def test_every_end_token_stops(eos) -> None:
    done = complete([*TOKENIZER.encode(" upon"), eos, 50])
    assert (done.text, done.finish_reason) == (" upon", "stop")
    assert done.token_ids[-1] == eos


def test_max_tokens_ends_with_length() -> None:
    done = complete("one two three four", max_tokens=3)
    assert done.finish_reason == "length"
    assert done.usage.completion_tokens == len(done.token_ids) == 3
    assert done.usage.prompt_tokens == len(PROMPT)
    assert done.text == TOKENIZER.decode(done.token_ids)


def test_full_context_ends_with_length() -> None:
    done = complete("a b c d e f g h", capacity=len(PROMPT) + 4)
    assert done.finish_reason == "length"
    assert len(done.token_ids) == 5  # the last one needs no position


def test_stop_string_across_pieces_is_not_part_of_the_text() -> None:
    done = complete("one two three four", stops=("o thr", "four"))
    assert (done.text, done.finish_reason) == ("one tw", "stop")


def test_stop_string_that_never_completes_is_given_out() -> None:
    done = complete([*TOKENIZER.encode("say END"), 2], stops=("ENDING",))
    assert (done.text, done.finish_reason) == ("say END", "stop")


def test_unfinished_character_at_the_end_becomes_a_replacement() -> None:
    half = next(i for i in range(4096) if TOKENIZER.decode([i]) == "\ufffd")
    assert complete([half, 2]).text == "\ufffd"


def test_prompt_without_tokens_is_refused() -> None:
    with pytest.raises(PromptError, match="at least 1 token, got 0"):
        check_prompt(ScriptedEngine([]), [])


@pytest.mark.parametrize("length", [64, 65])
def test_prompt_that_leaves_no_room_names_the_lengths_and_the_mend(length) -> None:
    with pytest.raises(ContextLengthError) as caught:
        check_prompt(ScriptedEngine([]), [5] * length)
    text = str(caught.value)
    assert all(part in text for part in ("at most 63", f"got {length}", "shorten", "up to 128"))
    check_prompt(ScriptedEngine([]), [5] * 63)
