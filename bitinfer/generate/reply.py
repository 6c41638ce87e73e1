"""``Reply``: token ids in, pieces of text out, until it is over; what is left is a `Completion`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bitinfer.detokenizer import StreamingDetokenizer
from bitinfer.generate.stopping import StopRules, StopStrings
from bitinfer.sampling import TokenLogprob
from bitinfer.speculation import Speculator
from bitinfer.tokenizer import Tokenizer

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class Usage:
    """What a generation counted and took.

    Attributes:
        prompt_tokens: Length of the prompt.
        cached_tokens: How many of them a cache already held.
        completion_tokens: Tokens generated, an end token included.
        prefill_s: From the start to the first generated token.
        decode_s: From there to the last one.
        drafted_tokens: Tokens that were run as drafts.
        accepted_tokens: How many of them became part of the reply.
    """

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    prefill_s: float
    decode_s: float
    drafted_tokens: int = 0
    accepted_tokens: int = 0


@dataclass(frozen=True)
class Completion:
    """A finished generation.

    Attributes:
        text: Without the end token and without the stop string.
        token_ids: Every generated id, an end token included.
        finish_reason: "stop" (end token or stop string) or "length" (cut by max_tokens, by the
            end of the context, or closed early).
        usage: Counts and times.
        logprobs: A record for each token id, if they were asked for.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    usage: Usage
    logprobs: tuple[TokenLogprob, ...] | None = None


class Reply:
    """A text that grows by token ids until a rule ends it.

    Attributes:
        finish_reason: Why it ended; None while it has not.
        max_tokens: Where it is cut.
        cached_tokens: How much of the prompt a cache already held.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt_ids: Sequence[int],
        rules: StopRules,
        *,
        cached_tokens: int = 0,
        logprobs: Sequence[TokenLogprob] | None = None,
        speculator: Speculator | None = None,
    ) -> None:
        """Start an empty reply; its time begins now.

        Args:
            tokenizer: Makes text of the ids.
            prompt_ids: The whole prompt; its end is the context of the first piece.
            rules: When to end.
            cached_tokens: For `Usage`; may be set later.
            logprobs: The sampler's list, which grows with the reply.
            speculator: For `Usage`.
        """
        self.finish_reason: FinishReason | None = None
        self.max_tokens = rules.max_tokens
        self._detokenizer = StreamingDetokenizer(tokenizer, prompt_ids)
        self._stop_strings = StopStrings(rules.stops)
        self._rules = rules
        self._prompt_tokens = len(prompt_ids)
        self.cached_tokens = cached_tokens
        self._logprobs = logprobs
        self._speculator = speculator
        self._ids: list[int] = []
        self._text: list[str] = []
        self._started_s = time.perf_counter()
        self._first_s = self._last_s = self._started_s

    def add(self, token_id: int) -> str:
        """Take a token; return the text that became certain."""
        self._ids.append(token_id)
        self._last_s = time.perf_counter()
        if len(self._ids) == 1:
            self._first_s = self._last_s
        if token_id in self._rules.eos_token_ids:
            return self.end("stop")
        piece, stopped = self._stop_strings.add(self._detokenizer.add(token_id))
        self._text.append(piece)
        if stopped:
            self.finish_reason = "stop"
        elif len(self._ids) >= self._rules.max_tokens:
            return piece + self.end("length")
        return piece

    def end(self, reason: FinishReason) -> str:
        """End it; return what waits, which may still hold a stop string."""
        piece, stopped = self._stop_strings.add(self._detokenizer.finish())
        piece += self._stop_strings.finish()
        self._text.append(piece)
        self.finish_reason = "stop" if stopped else reason
        return piece

    @property
    def token_ids(self) -> Sequence[int]:
        """Every id so far."""
        return self._ids

    @property
    def completion(self) -> Completion:
        """What was generated so far."""
        logprobs = None if self._logprobs is None else tuple(self._logprobs)
        return Completion(
            text="".join(self._text),
            token_ids=tuple(self._ids),
            finish_reason=self.finish_reason or "length",
            usage=Usage(
                prompt_tokens=self._prompt_tokens,
                cached_tokens=self.cached_tokens,
                completion_tokens=len(self._ids),
                prefill_s=self._first_s - self._started_s,
                decode_s=self._last_s - self._first_s,
                drafted_tokens=self._speculator.drafted if self._speculator else 0,
                accepted_tokens=self._speculator.accepted if self._speculator else 0,
            ),
            logprobs=logprobs,
        )
