"""Questions with given answers: which one a model finds likeliest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitinfer.errors import ContextLengthError, DataError
from bitinfer.evaluate.perplexity import opening_id
from bitinfer.evaluate.scoring import Progress, Span, score
from bitinfer.model import Model
from bitinfer.tokenizer import Tokenizer


@dataclass(frozen=True)
class Question:
    """A prompt and the texts that may follow it.

    Attributes:
        prompt: What is read; may be empty.
        choices: What may follow, each of at least one character.
        answer: Index of the right one.
        where: File and line, for messages.
    """

    prompt: str
    choices: tuple[str, ...]
    answer: int
    where: str = "question"


@dataclass(frozen=True)
class Choice:
    """What a model thinks of the choices of a question.

    Attributes:
        logprobs: Log-likelihood of each choice after the prompt, float64 ``(choices,)``.
        bytes: Length of each in UTF-8, int64 ``(choices,)``.
    """

    logprobs: NDArray[np.float64]
    bytes: NDArray[np.int64]

    @property
    def likeliest(self) -> int:
        """The choice of the largest log-likelihood, the first among equals."""
        return int(self.logprobs.argmax())

    @property
    def likeliest_by_length(self) -> int:
        """The choice of the largest log-likelihood per byte, the first among equals."""
        return int((self.logprobs / self.bytes).argmax())


def choose(
    model: Model,
    questions: Sequence[Question],
    *,
    separator: str = " ",
    chat: bool = False,
    progress: Progress = lambda done, total: None,
) -> list[Choice]:
    """Score the choices of each question.

    Args:
        model: The model.
        questions: Any number of them. "<s>" and the like are plain text in them.
        separator: Stands between prompt and choice; counts as part of the choice.
        chat: The prompt is a user's message, and a choice what the model would reply, without
            ``separator``.
        progress: Called with how many tokens are done, and how many there are.

    Raises:
        ContextLengthError: a prompt with a choice does not fit into the context.
        DataError: a choice is empty.
        TokenizerError: the model has no tokenizer, or no chat template where one is needed.
    """
    spans, sizes = [], []
    for question in questions:
        for choice in question.choices:
            if not choice:
                raise DataError(f'{question.where}: "choices": expected texts, got an empty one')
            span = (
                _reply_span(model, question.prompt, choice)
                if chat
                else text_span(model.tokenizer, question.prompt, separator + choice)
            )
            if len(span.token_ids) - 1 > model.context_length:
                raise ContextLengthError(
                    f"{question.where}: expected at most {model.context_length} tokens, the"
                    f" context, got {len(span.token_ids) - 1}: shorten the prompt"
                )
            spans.append(span)
            sizes.append(len(choice.encode()))
    scores = iter(score(model.engine, spans, progress))
    lengths = iter(sizes)
    return [
        Choice(
            np.array([next(scores).logprob for _ in question.choices]),
            np.array([next(lengths) for _ in question.choices]),
        )
        for question in questions
    ]


def text_span(tokenizer: Tokenizer, prompt: str, rest: str) -> Span:
    """A text from where its tokens are no longer those of the prompt alone.

    So a token that holds the end of the prompt and the beginning of the rest counts.
    """
    alone = tokenizer.encode(prompt, add_special_tokens=True)
    whole = tokenizer.encode(prompt + rest, add_special_tokens=True)
    pairs = enumerate(zip(alone, whole, strict=False))
    common = next((i for i, (a, b) in pairs if a != b), min(len(alone), len(whole)))
    if common == 0:  # an empty prompt of a model that adds no BOS
        return Span([opening_id(tokenizer), *whole], 1)
    return Span(whole, min(common, len(whole) - 1))


def _reply_span(model: Model, prompt: str, reply: str) -> Span:
    context = model.encode_chat([{"role": "user", "content": prompt}])
    return Span([*context, *model.tokenizer.encode(reply)], len(context))


@dataclass(frozen=True)
class Accuracy:
    """How often the right choice was the likeliest.

    Attributes:
        questions: How many were asked.
        correct: Of these, answered right by log-likelihood.
        correct_by_length: The same by log-likelihood per byte.
        chance: Share that guessing gets right on average.
    """

    questions: int
    correct: int
    correct_by_length: int
    chance: float

    @property
    def accuracy(self) -> float:
        """Share of right answers by log-likelihood."""
        return self.correct / self.questions

    @property
    def accuracy_by_length(self) -> float:
        """Share of right answers by log-likelihood per byte."""
        return self.correct_by_length / self.questions

    def standard_error(self, share: float) -> float:
        """Of a share of right answers, the questions taken as drawn at random."""
        return float(np.sqrt(share * (1 - share) / self.questions))


def accuracy(questions: Sequence[Question], found: Sequence[Choice]) -> Accuracy:
    """Count right answers; ``found`` is what `choose` made of ``questions``, at least one."""
    pairs = list(zip(questions, found, strict=True))
    return Accuracy(
        questions=len(pairs),
        correct=sum(one.likeliest == asked.answer for asked, one in pairs),
        correct_by_length=sum(one.likeliest_by_length == asked.answer for asked, one in pairs),
        chance=float(np.mean([1 / len(question.choices) for question in questions])),
    )


def confusion(questions: Sequence[Question], found: Sequence[Choice]) -> NDArray[Any]:
    """How often each answer (row) was taken for each (column), by log-likelihood.

    Returns:
        int64 ``(choices, choices)``; all questions have the same choices.
    """
    size = len(questions[0].choices)
    table = np.zeros((size, size), np.int64)
    for question, one in zip(questions, found, strict=True):
        table[question.answer, one.likeliest] += 1
    return table
