"""The kept KV cache: what it lends, to whom, and what it remembers."""

from __future__ import annotations

import pytest

from bitinfer.prefix_cache import PrefixCache, common_prefix


class Cache:
    """As much of a KV cache as lending needs."""

    def __init__(self) -> None:
        self.length = 0

    def trim(self, length: int) -> None:
        self.length = length


class Maker:
    def new_cache(self) -> Cache:
        return Cache()


def test_a_prompt_that_continues_the_last_one_gets_what_was_run() -> None:
    kept = PrefixCache(Maker())
    first = kept.lend([1, 2, 3])
    assert first.cached == 0
    first.cache.length = 5  # the prompt and two of three generated tokens were run
    first.release([4, 5, 6])
    again = kept.lend([1, 2, 3, 4, 5, 6, 7])
    assert (again.cache, again.cached, again.cache.length) == (first.cache, 5, 5)


def test_never_all_of_a_prompt_is_cached() -> None:
    kept = PrefixCache(Maker())
    first = kept.lend([1, 2, 3])
    first.cache.length = 3
    first.release([])
    assert kept.lend([1, 2, 3]).cached == 2


def test_another_prompt_keeps_only_the_common_beginning() -> None:
    kept = PrefixCache(Maker())
    first = kept.lend([1, 2, 3])
    first.cache.length = 3
    first.release([])
    other = kept.lend([1, 9, 3])
    assert (other.cached, other.cache.length) == (1, 1)


def test_a_prefill_that_was_stopped_is_remembered_as_far_as_it_went() -> None:
    kept = PrefixCache(Maker())
    first = kept.lend([1, 2, 3, 4])
    first.cache.length = 2
    first.release([])
    assert kept.lend([1, 2, 3, 4]).cached == 2


def test_while_it_is_lent_others_get_new_ones() -> None:
    kept = PrefixCache(Maker())
    first = kept.lend([1, 2])
    second = kept.lend([1, 2])
    assert second.cache is not first.cache
    second.release([3])
    first.cache.length = 2
    first.release([])
    assert kept.lend([1, 2, 3]).cache is first.cache


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ([], [1], 0),
        ([1, 2], [1, 2, 3], 2),
        ([1], [2], 0),
        ([1] * 600, [*[1] * 599, 2], 599),
        ([1] * 512, [1] * 700, 512),
        ([1] * 300, [1] * 300, 300),
    ],
)
def test_common_prefix(a, b, same) -> None:
    assert common_prefix(a, b) == same
