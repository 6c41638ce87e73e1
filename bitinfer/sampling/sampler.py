"""``Sampler``: from logits to the next token, with all that a generation asks for.

Same logits, parameters and seed give the same token on every machine: the random numbers are raw
Philox bits, and csrc/ops/sampling.h says how sums and exp are kept the same.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bitinfer.errors import CheckpointError
from bitinfer.sampling.candidates import Candidates, argmax, candidates
from bitinfer.sampling.logprobs import Logprobs, TokenLogprob
from bitinfer.sampling.params import SamplingParams
from bitinfer.sampling.penalties import Dry, TokenHistory, penalize_occurrences

_GREEDY_BELOW = 1e-5  # dividing by less would overflow float32 for ordinary logits
_BITS_AT_ONCE = 64  # raw random numbers fetched together

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
        most_candidates: How many of the largest logits decide, equal ones among them: all others
            may as well be -inf. 0: all logits count.
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
        self._candidates = None if params.temperature < _GREEDY_BELOW else candidates(params)
        self._bits: list[int] = []
        self._sees_all = self._changes or num_logprobs is not None
        decide = 1 if self._candidates is None else params.top_k
        self.most_candidates = 0 if self._sees_all else decide

    def __call__(self, logits: NDArray[np.float32]) -> int:
        """Choose the next token.

        Raises:
            CheckpointError: the logits hold no largest number (NaN, or infinities).
            ValueError: the settings leave no token, or the processor returned no logits.
        """
        token_id = self._look(logits) if self._sees_all else self._choose(logits)
        if token_id < 0:
            greedy(logits)  # says so if they have no largest number
            raise ValueError(
                "sampling: expected at least one token to be left, got none: logit_bias, the "
                "grammar and logits_processor forbid them all"
            )
        return token_id

    def _look(self, logits: NDArray[np.float32]) -> int:
        """A token after all that records or changes logits; -1 if none is left."""
        greedy(logits)  # refuses those without a largest number
        raw = None if self._num_logprobs is None else Logprobs(logits)
        token_id = self._choose(self._changed(logits) if self._changes else logits)
        if raw is not None and token_id >= 0:
            self.logprobs.append(raw.of(token_id, self._num_logprobs or 0))
        if self._changes and token_id >= 0:  # nothing else looks back
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

    def _choose(self, logits: NDArray[np.float32]) -> int:
        """A token; -1 if the logits hold no largest number."""
        if self._candidates is None:
            return argmax(logits)
        numbers = self._numbers.pop(0) if self._numbers else self._new_numbers()
        return self._draw(self._candidates, logits, *numbers)

    def guess(self, logits: NDArray[np.float32], ahead: int) -> int:
        """What would be chosen ``ahead`` tokens from now if the model had these logits.

        It draws with the random number that will be used there, so that a draft model with a
        similar distribution mostly names the very token. The bias, penalties, grammar and
        processor are left out. Changes no later choice.

        Raises:
            CheckpointError: the logits hold no largest number.
        """
        if self._candidates is None:
            return greedy(logits)
        while len(self._numbers) <= ahead:
            self._numbers.append(self._new_numbers())
        token_id = self._draw(self._candidates, logits, *self._numbers[ahead])
        return token_id if token_id >= 0 else greedy(logits)

    def _draw(
        self, pick: Candidates, logits: NDArray[np.float32], for_xtc: float, for_draw: float
    ) -> int:
        return pick.draw(logits, for_draw, for_xtc < self._params.xtc_probability)

    def _new_numbers(self) -> tuple[float, float]:
        """Random numbers of a token: for XTC (1 where it is off), and for the draw."""
        return (self._uniform() if self._params.xtc_probability > 0 else 1.0), self._uniform()

    def _uniform(self) -> float:
        """A multiple of 2^-53 in [0, 1)."""
        if not self._bits:
            self._bits = self._random.random_raw(_BITS_AT_ONCE)[::-1].tolist()
        return (self._bits.pop() >> 11) * 2.0**-53

    def _accept(self, token_id: int) -> None:
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
    token_id = argmax(logits)
    if token_id < 0:
        raise CheckpointError(
            f"logits: expected a finite largest value, got {np.max(logits)}: the weights "
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
