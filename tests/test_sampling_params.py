"""The settings: ranges and what is said outside of them, defaults, options, typed text."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest

from bitinfer.errors import ConfigError
from bitinfer.sampling import SETTINGS, SamplingParams, setting_from_text

NUMBERS = [name for name, setting in SETTINGS.items() if setting["kind"] != "bias"]


@pytest.mark.parametrize("name", NUMBERS)
def test_both_ends_of_a_range_are_allowed_and_what_lies_beyond_is_refused(name) -> None:
    low, high = SETTINGS[name]["low"], SETTINGS[name]["high"]
    for value in (low, high):
        assert getattr(SamplingParams(**{name: value}), name) == value
    for value in (low - 1, high + 1, str(low), True, math.nan, [low]):
        with pytest.raises(ValueError, match=f"^{name}: expected a .*number from") as caught:
            SamplingParams(**{name: value})
        assert str(caught.value).endswith(f"got {value!r}")
        assert f"{low:g}" in str(caught.value)


@pytest.mark.parametrize("name", [n for n in NUMBERS if SETTINGS[n]["kind"] == "int"])
def test_a_fraction_is_no_whole_number(name) -> None:
    with pytest.raises(ValueError, match=f"^{name}: expected a whole number"):
        SamplingParams(**{name: 1.5})


def test_defaults_lie_in_their_ranges_and_every_setting_has_its_help() -> None:
    params = SamplingParams()
    for name, setting in SETTINGS.items():
        assert setting["kind"] in ("float", "int", "bias")
        assert setting["help"]
        if setting["kind"] != "bias" and name != "seed":
            assert setting["low"] <= getattr(params, name) <= setting["high"]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([1, 2], "expected pairs of token id and number"),
        ({-1: 0.0}, "expected token ids from 0 up, got -1"),
        ({"5": 1.0}, "expected token ids from 0 up, got '5'"),
        ({5: 101}, "expected a number up to 100 or -inf for token 5, got 101"),
        ({5: math.nan}, "got nan"),
        ({5: "high"}, "got 'high'"),
    ],
)
def test_bad_bias_is_refused_by_name(value, said) -> None:
    with pytest.raises(ValueError, match=r"^logit_bias: ") as caught:
        SamplingParams(logit_bias=value)
    assert said in str(caught.value)


def test_bias_is_a_copy_and_may_forbid() -> None:
    given = {np.int64(5): -math.inf, 6: 2}
    params = SamplingParams(logit_bias=given)
    given.clear()
    assert params.logit_bias == {5: -math.inf, 6: 2}


def test_unknown_option_is_refused() -> None:
    with pytest.raises(TypeError, match="top_x"):
        SamplingParams().with_options(top_x=1)


def test_defaults_come_from_generation_config() -> None:
    read = SamplingParams.from_generation_config
    assert read({}) == SamplingParams(temperature=0.0)
    assert read({"do_sample": False, "temperature": 0.7}) == SamplingParams()
    assert read({"do_sample": True, "temperature": 0.6, "top_p": 0.9}) == SamplingParams(
        temperature=0.6, top_k=50, top_p=0.9
    )
    assert read({"do_sample": True, "typical_p": 0.5}).typical_p == 0.5
    assert read({"repetition_penalty": 1.1}) == SamplingParams(repetition_penalty=1.1)
    with pytest.raises(ConfigError, match=r"generation_config.json: top_p: expected"):
        read({"do_sample": True, "top_p": 7})


def test_options_that_are_none_keep_the_default() -> None:
    base = SamplingParams(temperature=0.6, top_k=40)
    assert base.with_options(temperature=None, top_k=5) == dataclasses.replace(base, top_k=5)


def test_settings_can_be_written_as_json() -> None:
    params = SamplingParams(seed=3, logit_bias={4: 1.5})
    assert json.loads(json.dumps(dataclasses.asdict(params)))["logit_bias"] == {"4": 1.5}


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("temperature", "0.7", 0.7),
        ("top_k", "40", 40),
        ("logit_bias", "15=-2.5,16=-inf", {15: -2.5, 16: -math.inf}),
        ("logit_bias", "", {}),
    ],
)
def test_setting_is_read_from_text(name, text, value) -> None:
    assert setting_from_text(name, text) == value


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("temperature", "hot", "temperature: expected a number from 0 to 100, got 'hot'"),
        ("temperature", "101", "temperature: expected a number from 0 to 100, got 101.0"),
        ("top_k", "1.5", "top_k: expected a whole number from 0 to 2147483647, got '1.5'"),
        ("logit_bias", "15", "logit_bias: expected pairs of token id and number, got '15'"),
    ],
)
def test_text_that_is_no_setting_is_refused_with_range_and_value(name, text, said) -> None:
    with pytest.raises(ValueError, match="expected") as caught:
        setting_from_text(name, text)
    assert str(caught.value) == said


def test_documentation_defines_every_setting() -> None:
    page = Path(__file__).parent.parent / "docs" / "sampling.md"
    text = page.read_text(encoding="utf-8")
    assert [name for name in SETTINGS if name not in text] == []
