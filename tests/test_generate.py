"""The generation loop, with a scripted engine in place of a model."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, strategies as st

import bitinfer
from bitinfer.errors import ContextLengthError, PromptError
from bitinfer.generate import (
    StopRules,
    StopStrings,
    TextStream,
    check_prompt,
    generate,
    generate_step,
)
from bitinfer.sampling import greedy
from bitinfer.tokenizer import Tokenizer

TOKENIZER = Tokenizer.load(bitinfer.default_model(), vocab_size=4096, eos_token_ids=[2, 3])
PROMPT = TOKENIZER.encode("Once")


class ScriptedCache:
    def __init__(self, capacity: int) -> None:
        self.length, self.capacity = 0, capacity


class ScriptedEngine:
    """Says the ids of ``script`` one after the other, whatever the prompt; notes its calls."""

    prefill_chunk = 4
    vocab_size = 4096
    context_length = 64

    def __init__(self, script: list[int]) -> None:
        self.spec = {"max_position_embeddings": 128}
        self.script = iter(script)
        self.calls: list[tuple[list[int], str]] = []

    def check_ids(self, token_ids) -> np.ndarray:
        if not len(token_ids) or max(token_ids) >= self.vocab_size:
            raise PromptError("token_ids")
        return np.asarray(token_ids, np.int32)

    def forward(self, token_ids, caches, *, logits):
        self.calls.append((list(map(int, token_ids[0])), logits))
        caches[0].length += len(token_ids[0])
        if logits == "none":
            return np.empty((0, self.vocab_size), np.float32)
        row = np.zeros((1, self.vocab_size), np.float32)
        row[0, next(self.script)] = 1
        return row


def stream(text_or_ids, *, capacity: int = 64, release=None, **rules) -> TextStream:
    """What a model that says this text (for ever more "!" after it) generates."""
    ids = TOKENIZER.encode(text_or_ids) if isinstance(text_or_ids, str) else text_or_ids
    engine = ScriptedEngine([*ids, *TOKENIZER.encode("!" * 200)])
    rules.setdefault("max_tokens", 50)
    return TextStream(
        generate_step(engine, PROMPT, ScriptedCache(capacity), greedy),
        tokenizer=TOKENIZER,
        prompt_ids=PROMPT,
        rules=StopRules(eos_token_ids=frozenset(TOKENIZER.eos_token_ids), **rules),
        release=release,
    )


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


def test_ids_of_padding_rows_are_never_chosen() -> None:
    engine = ScriptedEngine([4000])
    assert next(generate_step(engine, [1], ScriptedCache(9), greedy, vocab_size=3999)) != 4000


@pytest.mark.parametrize("eos", [2, 3])
def test_every_end_token_stops(eos) -> None:
    done = generate(stream([*TOKENIZER.encode(" upon"), eos, 50]))
    assert (done.text, done.finish_reason) == (" upon", "stop")
    assert done.token_ids[-1] == eos


def test_max_tokens_ends_with_length() -> None:
    done = generate(stream("one two three four", max_tokens=3))
    assert done.finish_reason == "length"
    assert done.usage.completion_tokens == len(done.token_ids) == 3
    assert done.usage.prompt_tokens == len(PROMPT)
    assert done.text == TOKENIZER.decode(done.token_ids)


def test_full_context_ends_with_length() -> None:
    done = generate(stream("a b c d e f g h", capacity=len(PROMPT) + 4))
    assert done.finish_reason == "length"
    assert len(done.token_ids) == 5  # the last one needs no position


def test_stop_string_across_pieces_is_not_part_of_the_text() -> None:
    done = generate(stream("one two three four", stops=("o thr", "four")))
    assert (done.text, done.finish_reason) == ("one tw", "stop")


def test_stop_string_that_never_completes_is_given_out() -> None:
    done = generate(stream([*TOKENIZER.encode("say END"), 2], stops=("ENDING",)))
    assert (done.text, done.finish_reason) == ("say END", "stop")


def test_unfinished_character_at_the_end_becomes_a_replacement() -> None:
    half = next(i for i in range(4096) if TOKENIZER.decode([i]) == "\ufffd")
    assert generate(stream([half, 2])).text == "\ufffd"


@given(
    text=st.text(alphabet="abc", max_size=30),
    stops=st.lists(st.text(alphabet="abc", min_size=1, max_size=4), max_size=3),
    cuts=st.lists(st.integers(1, 4), max_size=30),
)
def test_borders_of_pieces_do_not_matter_to_stop_strings(text, stops, cuts) -> None:
    def run(pieces) -> tuple[str, bool]:
        search, out = StopStrings(stops), ""
        for piece in pieces:
            told, stopped = search.add(piece)
            out += told
            if stopped:
                return out, True
        return out + search.finish(), False

    places = [0, *itertools.accumulate(cuts)]
    pieces = [text[a:b] for a, b in itertools.pairwise([*places, len(text) + places[-1]])]
    expected = (text, False)
    for end in range(len(text) + 1):  # the first character that completes a stop string
        if hits := [s for s in stops if text[:end].endswith(s)]:
            expected = (text[: end - max(map(len, hits))], True)
            break
    assert run(pieces) == run(text) == run([text]) == expected


def test_nothing_that_may_be_a_stop_string_is_given_out_early() -> None:
    search = StopStrings(["stop"])
    assert search.add("a st") == ("a ", False)
    assert search.add("o") == ("", False)
    assert search.add("x") == ("stox", False)


def test_early_close_releases_once_with_what_was_generated() -> None:
    released = []
    one = stream("one two three", release=released.append)
    next(one)
    one.close()
    one.close()
    assert len(released) == 1
    assert tuple(released[0]) == one.completion.token_ids
    assert list(one) == []


def test_error_in_a_step_releases() -> None:
    released = []

    def steps():
        yield PROMPT[0]
        raise KeyboardInterrupt

    one = TextStream(
        steps(),
        tokenizer=TOKENIZER,
        prompt_ids=PROMPT,
        rules=StopRules(max_tokens=5),
        release=released.append,
    )
    with pytest.raises(KeyboardInterrupt):
        list(one)
    assert len(released) == 1


def test_pieces_joined_are_the_completion() -> None:
    one = stream("many words 👩‍👩‍👧 and more")
    assert "".join(one) == one.completion.text


@pytest.mark.parametrize("rules", [{"max_tokens": 0}, {"max_tokens": 1.5}, {"stops": ("",)}])
def test_rules_that_cannot_be_are_refused(rules) -> None:
    with pytest.raises(ValueError, match="expected"):
        StopRules(**{"max_tokens": 5, **rules})


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
