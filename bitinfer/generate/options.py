"""The options of a generation: their one list, for type checkers and for reading them."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypedDict, get_args

from bitinfer.generate.stopping import StopRules
from bitinfer.grammar import KINDS
from bitinfer.sampling import MOST_LOGPROBS, SETTINGS, LogitsProcessor, SamplingParams

Speculate = Literal["auto", "off", "ngram"]
SPECULATE: tuple[Speculate, ...] = get_args(Speculate)


class SamplingOptions(TypedDict, total=False):
    """The fields of `SamplingParams`; None is the model's default."""

    temperature: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    typical_p: float | None
    repetition_penalty: float | None
    repetition_window: int | None
    presence_penalty: float | None
    frequency_penalty: float | None
    dry_multiplier: float | None
    dry_base: float | None
    dry_allowed_length: int | None
    dry_window: int | None
    xtc_probability: float | None
    xtc_threshold: float | None
    logit_bias: Mapping[int, float] | None
    seed: int | None


class GenerateOptions(SamplingOptions, total=False):
    """What `Model.generate`, ``stream``, ``chat`` and their kin take by keyword.

    Attributes:
        max_tokens: Most tokens to generate.
        stop: Text, or several, at which to end; it is not part of the result.
        logprobs: Record the logprob of each token and of so many of the likeliest, 0 to 100.
        grammar, regex, json_schema: What the reply must match; one of the three (bitinfer.grammar).
        logits_processor: Called for each token with the ids so far, int32 ``(T,)``, and the
            logits, float32 ``(vocab_size,)``, which it may change or replace.
        speculate: One of ``SPECULATE``: draft tokens that are run at once where that is faster,
            by the draft model, or without one by n-grams of the text; never; always by n-grams.
            No token depends on it.
    """

    max_tokens: int | None
    stop: str | Sequence[str]
    logprobs: int | None
    grammar: str | None
    regex: str | None
    json_schema: str | Mapping[str, Any] | None
    logits_processor: LogitsProcessor | None
    speculate: Speculate | None


@dataclass(frozen=True)
class Request:
    """Options that were read and checked.

    Attributes:
        sampling: Settings, seed included.
        rules: When a reply ends.
        grammar: Kind (one of ``grammar.KINDS``) and value of what it must match, if anything.
        num_logprobs: Likeliest tokens to record for each token; None: no record.
        processor: The logits processor.
        speculate: How drafts are made.
    """

    sampling: SamplingParams
    rules: StopRules
    grammar: tuple[str, Any] | None
    num_logprobs: int | None
    processor: LogitsProcessor | None
    speculate: Speculate

    @classmethod
    def read(
        cls,
        options: GenerateOptions,
        sampling: SamplingParams,
        max_tokens: int,
        eos_token_ids: Collection[int],
        speculate: Speculate = "off",
    ) -> Request:
        """Join the options that are not None with the model's defaults.

        Raises:
            TypeError: an option has no such name (the nearest one is named).
            ValueError: an option is out of range, or two of ``grammar.KINDS`` are given.
        """
        known = GenerateOptions.__annotations__.keys()
        for name in options.keys() - known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
            raise TypeError(f"unknown option {name}: {hint}")
        given: dict[str, Any] = {k: v for k, v in options.items() if v is not None}
        kinds = [kind for kind in KINDS if kind in given]
        if len(kinds) > 1:
            raise ValueError(f"{kinds[1]}: expected to stand alone, got {kinds[0]} too")
        stop = given.get("stop", ())
        return cls(
            sampling=sampling.with_options(**{k: v for k, v in given.items() if k in SETTINGS}),
            rules=StopRules(
                max_tokens=given.get("max_tokens", max_tokens),
                eos_token_ids=frozenset(eos_token_ids),
                stops=(stop,) if isinstance(stop, str) else tuple(stop),
            ),
            grammar=(kinds[0], given[kinds[0]]) if kinds else None,
            num_logprobs=_checked_logprobs(given.get("logprobs")),
            processor=given.get("logits_processor"),
            speculate=checked_speculate(given.get("speculate", speculate)),
        )

    def with_seed(self, seed: int) -> Request:
        """The same with another seed, of which the low 64 bits count."""
        return replace(self, sampling=replace(self.sampling, seed=seed % 2**64))


def _checked_logprobs(count: Any) -> int | None:
    if count is None:
        return None
    if not isinstance(count, int) or isinstance(count, bool) or not 0 <= count <= MOST_LOGPROBS:
        raise ValueError(
            f"logprobs: expected a whole number from 0 to {MOST_LOGPROBS}, got {count!r}"
        )
    return count


def checked_speculate(value: Any) -> Speculate:
    """The value, one of ``SPECULATE``.

    Raises:
        ValueError: it is none of them.
    """
    for known in SPECULATE:
        if value == known:
            return known
    raise ValueError(f"speculate: expected {', '.join(SPECULATE)}, got {value!r}")
