"""Texts to vectors: tokenize, run several texts at once, pool each by itself."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypedDict

import numpy as np
from numpy.typing import NDArray

from bitinfer.engine import Engine
from bitinfer.errors import ContextLengthError, PromptError
from bitinfer.pooling import Pooling
from bitinfer.tokenizer import Tokenizer

if TYPE_CHECKING:
    from typing_extensions import Unpack

_BATCH_TOKENS = 4096  # of one forward call, but for a longer text: many share each read of weights


class EmbedOptions(TypedDict, total=False):
    """How texts become vectors; what is not given is as the model's files say."""

    pooling: str | None
    """"last" token, "mean" of all, or "cls": the first; without files "last"."""
    normalize: bool | None
    """Bring vectors to unit length; without files yes."""
    prompt_name: str | None
    """The model's prompt to put before each text."""
    truncate: bool
    """Cut texts that are too long, instead of an error."""


def embed(
    engine: Engine,
    tokenizer: Tokenizer,
    recipe: Pooling,
    texts: Sequence[str],
    name: str,
    progress: Callable[[int, int], None],
    **options: Unpack[EmbedOptions],
) -> NDArray[np.float32]:
    """One vector of each text; warns of a model that was not trained for it.

    Args:
        engine: Runs the texts.
        tokenizer: Its tokenizer; BOS and EOS are put where its post-processor puts them.
        recipe: What makes a vector of a text where ``options`` do not say.
        texts: Any number of them.
        name: Of the model, for the warning.
        progress: Called with how many texts are done and how many there are.
        **options: See `EmbedOptions`.

    Returns:
        float32 ``(len(texts), hidden_size)``.

    Raises:
        PromptError: a text has no token.
        ContextLengthError: a text has more tokens than the model takes, and ``truncate`` is off.
        TypeError: ``texts`` is one text.
        ValueError: ``pooling`` or ``prompt_name`` is none of the choices, or a text holds a lone
            surrogate.
    """
    if isinstance(texts, str):
        raise TypeError("texts: expected a list of texts, got one text: put it into a list")
    pooling = recipe.changed(options.get("pooling"), options.get("normalize"))
    prompt = pooling.prompt(options.get("prompt_name"))
    limit = min(engine.context_length, pooling.max_tokens or engine.context_length)
    truncate = options.get("truncate", False)
    token_ids = [
        _token_ids(tokenizer, prompt + text, f"text {i}", limit, truncate)
        for i, text in enumerate(texts)
    ]
    if not pooling.trained:
        warnings.warn(f"{name} was not trained for such embeddings: they tell little", stacklevel=3)
    prompt_length = len(tokenizer.encode_whole(prompt, closed=False)) if prompt else 0
    vectors = np.empty((len(texts), engine.spec["hidden_size"]), np.float32)
    done = 0
    for batch in _batches(token_ids):
        for states in _states(engine, batch, last=pooling.mode == "last"):
            vectors[done] = pooling.pool(states, prompt_length)
            done += 1
        progress(done, len(texts))
    return vectors


def _token_ids(tokenizer: Tokenizer, text: str, name: str, limit: int, truncate: bool) -> list[int]:
    ids = tokenizer.encode_whole(text, limit if truncate else None)
    if not ids:
        raise PromptError(f"{name}: expected at least one token, got an empty text")
    if len(ids) > limit:
        raise ContextLengthError(
            f"{name}: expected at most {limit} tokens, got {len(ids)}: shorten it, or cut it with"
            " truncate"
        )
    return ids


def _batches(token_ids: Sequence[list[int]]) -> Iterator[list[list[int]]]:
    """Neighbouring texts, of about ``_BATCH_TOKENS`` together."""
    batch: list[list[int]] = []
    for ids in token_ids:
        if batch and sum(map(len, batch)) + len(ids) > _BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(ids)
    if batch:
        yield batch


def _states(engine: Engine, batch: list[list[int]], *, last: bool) -> list[NDArray[np.float32]]:
    """Hidden states of each text: of all tokens, or of its last."""
    states = engine.hidden(batch, rows="last" if last else "all")
    ends = np.cumsum([1 if last else len(ids) for ids in batch])
    return np.split(states, ends[:-1])
