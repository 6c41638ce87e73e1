"""``Sampler``: from logits to the next token, with all that a generation asks for.

Same logits, parameters and seed give the same token on every machine: the random numbers are raw
Philox bits, and candidates.py says how sums and exp are kept the same.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bitinfer.errors import CheckpointError
from bitinfer.sampling.candidates import candidates, draw
from bitinfer.sampling.logprobs import Logprobs, TokenLogprob
from bitinfer.sampling.params import SamplingParams
from bitinfer.sampling.penalties import Dry, TokenHistory, penalize_occurrences

_GREEDY_BELOW = 1e-5  # dividing by less would overflow float32 for ordinary logits

ChooseToken = Callable[[NDArray[np.float32]], int]  # what the generation loop needs of a sampler

# (token_ids, logits) -> logits, or None if it changed them in place.
LogitsProcessor = Callable[[NDArray[np.int32], NDArray[np.float32]], "NDArray[Any] | None"]


class Constraint(Protocol):
    """What a reply must obey, such as a grammar."""

    def forbid(self, logits: NDArray[np.float32]) -> None:
        """Set the logits of all tokens that must not come next to -inf, in place."""

    def accept(self, token_id: int) -> None:
        """Take the token that was chosen."""


class Sampler:
    """A function from logits, float32 ``(vocab_size,)``, not modified, to a token id.

    It holds the random numbers' state and the text so far: one per generation, not shared between
    threads.

    Attributes:
        logprobs: A record for each token so far, if they were asked for.
    """

    def __init__(
        self,
        params: SamplingParams,
        *,
        prompt_ids: Sequence[int] = (),
        breaks: Callable[[int], bool] = lambda _: False,
        processor: LogitsProcessor | None = None,
        constraint: Constraint | None = None,
        num_logprobs: int | None = None,
    ) -> None:
        """Start a generation.

        Args:
            params: The settings.
            prompt_ids: Tokens before the reply, which penalties look at.
            breaks: Tells the tokens that no sequence of DRY crosses.
            processor: Changes the logits before all else.
            constraint: What the reply must obey.
            num_logprobs: Record logprobs with so many of the likeliest tokens; None: record none.
        """
        self._params = params
        self._processor = processor
        self._constraint = constraint
        self._num_logprobs = num_logprobs
        self.logprobs: list[TokenLogprob] = []
        seed = secrets.randbits(64) if params.seed is None else int(params.seed)
        self._random = np.random.Philox(key=seed)
        self._numbers: list[tuple[float, float]] = []  # of the next tokens, drawn by `guess`
        prompt = np.array(prompt_ids, np.int32)
        self._history = TokenHistory(prompt)
        self._dry = Dry(params, prompt, breaks) if params.dry_multiplier > 0 else None
        self._bias_ids = np.array([*params.logit_bias], np.intp)
        self._bias = np.array([*params.logit_bias.values()], np.float32)
        self._penalizes = (params.repetition_penalty, params.presence_penalty) != (1.0, 0.0)
        self._penalizes |= params.frequency_penalty != 0
        self._changes = bool(
            processor or constraint or self._dry or self._penalizes or params.logit_bias
        )

    def __call__(self, logits: NDArray[np.float32]) -> int:
        """Choose the next token.

        Raises:
            CheckpointError: the logits hold no largest number (NaN, or infinities).
            ValueError: the settings leave no token, or the processor returned no logits.
        """
        best = greedy(logits)
        raw = None if self._num_logprobs is None else Logprobs(logits)
        if self._changes:
            logits = self._changed(logits)
            best = int(np.argmax(logits))
            if not math.isfinite(logits[best]):
                raise ValueError(
                    "sampling: expected at least one token to be left, got none: logit_bias, the "
                    "grammar and logits_processor forbid them all"
                )
        if self._params.temperature < _GREEDY_BELOW:
            token_id = best
        else:
            token_id = self._draw(logits, *self._next_numbers())
        if raw is not None:
            self.logprobs.append(raw.of(token_id, self._num_logprobs or 0))
        self._accept(token_id)
        return token_id

    def _changed(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """A copy with all that acts before the temperature."""
        logits = logits.copy()
        if self._processor is not None:
            logits = _processed(self._processor, self._history.ids, logits)
        if len(self._bias_ids):
            logits[self._bias_ids] += self._bias
        if self._penalizes:
            penalize_occurrences(logits, self._params, self._history)
        if self._dry is not None:
            self._dry.penalize(logits, self._history.ids)
        if self._constraint is not None:
            self._constraint.forbid(logits)
        return logits

    def guess(self, logits: NDArray[np.float32], ahead: int) -> int:
        """What would be chosen ``ahead`` tokens from now if the model had these logits.

        It draws with the random number that will be used there, so that a draft model with a
        similar distribution mostly names the very token. The bias, penalties, grammar and
        processor are left out. Changes no later choice.
        """
        if self._params.temperature < _GREEDY_BELOW:
            return greedy(logits)
        while len(self._numbers) <= ahead:
            self._numbers.append(self._new_numbers())
        return self._draw(logits, *self._numbers[ahead])

    def _draw(self, logits: NDArray[np.float32], for_xtc: float, for_draw: float) -> int:
        ids, weights = candidates(logits, self._params, for_xtc < self._params.xtc_probability)
        place = draw(weights, for_draw)
        return int(place if ids is None else ids[place])

    def _next_numbers(self) -> tuple[float, float]:
        """The random numbers of the next token."""
        return self._numbers.pop(0) if self._numbers else self._new_numbers()

    def _new_numbers(self) -> tuple[float, float]:
        """Random numbers of a token: for XTC (1 where it is off), and for the draw."""
        return (self._uniform() if self._params.xtc_probability > 0 else 1.0), self._uniform()

    def _uniform(self) -> float:
        """A multiple of 2^-53 in [0, 1)."""
        return (int(self._random.random_raw()) >> 11) * 2.0**-53

    def _accept(self, token_id: int) -> None:
        if self._changes:  # nothing else looks back
            self._history.append(token_id)
            if self._dry is not None:
                self._dry.add(self._history.ids)
            if self._constraint is not None:
                self._constraint.accept(token_id)


def greedy(logits: NDArray[np.float32]) -> int:
    """The token with the largest logit; the lowest id among equals.

    Raises:
        CheckpointError: the logits hold no largest number (NaN, or infinities).
    """
    token_id = int(np.argmax(logits))
    if not math.isfinite(logits[token_id]):
        raise CheckpointError(
            f"logits: expected a finite largest value, got {logits[token_id]}: the weights "
            "overflow with this prompt; check the checkpoint"
        )
    return token_id


def _processed(
    processor: LogitsProcessor, token_ids: NDArray[np.int32], logits: NDArray[np.float32]
) -> NDArray[np.float32]:
    """What ``processor`` makes of ``logits``, which it may change."""
    shape = logits.shape
    result = processor(token_ids, logits)
    changed = logits if result is None else np.asarray(result)
    if changed.shape != shape or changed.dtype.kind != "f":
        raise ValueError(
            f"logits_processor: expected to return float32 {shape} or None, got "
            f"{changed.dtype} {changed.shape}"
        )
    with np.errstate(over="ignore"):
        changed = changed.astype(np.float32, copy=result is not None)
    if not np.max(changed) < np.inf:  # the largest of what holds a NaN is NaN
        raise ValueError("logits_processor: expected finite logits or -inf, got NaN or inf")
    return changed
