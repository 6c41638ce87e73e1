"""The one list of options: equal to SamplingParams, read strictly, known to type checkers."""

from __future__ import annotations

import dataclasses

import pytest

from bitinfer.generate import GenerateOptions, Request, SamplingOptions
from bitinfer.sampling import SamplingParams

DEFAULTS = SamplingParams(temperature=0.7, top_k=50)


def read(**options) -> Request:
    return Request.read(options, DEFAULTS, 100, [2])


def test_options_for_type_checkers_are_the_fields_of_the_params() -> None:
    fields = {
        field.name: field.type.removesuffix(" | None") + " | None"
        for field in dataclasses.fields(SamplingParams)
    }
    options = SamplingOptions.__annotations__
    assert {name: kind.__forward_arg__ for name, kind in options.items()} == fields


def test_every_option_is_documented_or_a_setting() -> None:
    own = GenerateOptions.__annotations__.keys() - SamplingOptions.__annotations__.keys()
    assert own == {
        *("max_tokens", "stop", "logprobs", "logits_processor", "speculate"),
        *("grammar", "regex", "json_schema"),
    }
    assert all(name in (GenerateOptions.__doc__ or "") for name in own)


def test_what_is_not_given_or_none_is_the_default() -> None:
    request = read(max_tokens=None, top_k=None, temperature=None)
    assert request == read()
    assert request.sampling == DEFAULTS
    assert (request.rules.max_tokens, request.rules.stops) == (100, ())
    assert request.rules.eos_token_ids == {2}


def test_what_is_given_wins() -> None:
    request = read(max_tokens=5, top_k=3, stop="a", logprobs=0, regex="b")
    assert request.sampling == dataclasses.replace(DEFAULTS, top_k=3)
    assert (request.rules.max_tokens, request.rules.stops) == (5, ("a",))
    assert (request.num_logprobs, request.grammar) == (0, ("regex", "b"))
    assert read(stop=["a", "b"]).rules.stops == ("a", "b")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"top_p": 2}, "top_p: expected a number from 0 to 1, got 2"),
        ({"max_tokens": 0}, "max_tokens: expected a whole number from 1 up, got 0"),
        ({"stop": [""]}, "stop: expected texts that are not empty, got ''"),
        ({"logprobs": -1}, "logprobs: expected a whole number from 0 to 100, got -1"),
        ({"logprobs": True}, "logprobs: expected a whole number from 0 to 100, got True"),
        ({"speculate": "on"}, "speculate: expected auto, off, ngram, got 'on'"),
        ({"regex": "a", "grammar": "b"}, "regex: expected to stand alone, got grammar too"),
    ],
)
def test_value_out_of_range_is_refused_by_name(options, said) -> None:
    with pytest.raises(ValueError, match="expected") as caught:
        read(**options)
    assert str(caught.value) == said


def test_option_like_no_other_lists_them_all() -> None:
    with pytest.raises(TypeError, match="unknown option zzz: known are temperature, top_k"):
        read(zzz=1)


def test_seeds_wrap_at_64_bits() -> None:
    assert read().with_seed(2**64 + 3).sampling.seed == 3
