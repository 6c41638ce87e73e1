"""When a reply ends: stop strings wherever pieces break, and rules that cannot be."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, strategies as st

from bitinfer.generate import StopRules, StopStrings


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


@pytest.mark.parametrize(
    "rules",
    [
        {"max_tokens": 0},
        {"max_tokens": 1.5},
        {"max_tokens": True},
        {"stops": ("",)},
        {"stops": (1,)},
    ],
)
def test_rules_that_cannot_be_are_refused(rules) -> None:
    with pytest.raises(ValueError, match=r"(max_tokens|stop): expected .* got"):
        StopRules(**{"max_tokens": 5, **rules})
