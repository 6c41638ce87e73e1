"""Find the byte order of I2_S, which a GGUF file does not tell: by its hash, or by a probe.

Embedding models, which predict no tokens, come from one converter alone, which writes 128-block on
every machine (microsoft/BitNet, utils/convert-bitnet-embedding-to-gguf.py).

The probe reads a short text with the weights decoded in each order. Where the order is wrong, the
network is scrambled: its guesses have nothing to do with the text, so its mean loss is that of
chance, ln(vocabulary) or more (by Jensen's inequality: the mean of -log p over tokens that p knows
nothing of). The right order reads the text. So an order is taken only if

- its mean loss is 6 standard errors below ln(vocabulary), and
- every other order's loss, token by token, lies on average 6 standard errors above its own.

Of 60 tokens, chance goes so far about once in ten million files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitinfer import _core, runtime
from bitinfer.config import inv_freq
from bitinfer.errors import CheckpointError
from bitinfer.families.gguf_source import GgufSource
from bitinfer.families.plan import ModelPlan
from bitinfer.families.spec import HEAD
from bitinfer.formats.gguf_tiles import I2S_LAYOUTS
from bitinfer.losses import token_losses

# As the command line spells them -> as the reader does.
LAYOUT_NAMES = {layout.replace("-block", "").replace("-", ""): layout for layout in I2S_LAYOUTS}
_ENOUGH = 6.0  # standard errors
_PROBE = (
    "Once upon a time, there was a little girl named Lily. She lived in a small house near the"
    " forest with her mother and father. Every morning the sun came up and the birds sang in the"
    " trees. One day she found a big red ball under the table and went outside to play."
)

Losses = NDArray[np.float64]


def settle_layout(source: GgufSource, plan: ModelPlan, asked: str | None) -> None:
    """Set ``source.i2s_layout`` where it is needed, and note how it was found.

    Args:
        source: The file.
        plan: What becomes of its tensors.
        asked: A key of ``LAYOUT_NAMES``, if the user knows it.

    Raises:
        ValueError: ``asked`` is none of the choices, or there are no I2_S tensors.
        CheckpointError: the order could not be found.
    """
    if asked is not None and asked not in LAYOUT_NAMES:
        raise ValueError(f"i2s_layout: expected {', '.join(LAYOUT_NAMES)}, got {asked!r}")
    if not source.needs_layout:
        if asked is not None:
            raise ValueError(f"i2s_layout: expected none, as {source.path} has no I2_S tensors")
        return
    how = "as asked"
    layout = None if asked is None else LAYOUT_NAMES[asked]
    if layout is None:
        layout, how = source.known_layout(), "known by the file's SHA-256"
    if layout is None and source.is_embedding_model:
        layout, how = I2S_LAYOUTS[0], "in which embedding models are written"
    if layout is None:
        layout, how = _probe(source, plan)
    source.i2s_layout = layout
    source.notes.append(f"I2_S byte order: {layout}, {how}")


def clearly_lowest(losses: Mapping[str, Losses], vocab_size: int) -> str | None:
    """The order that reads the text, by the rule above; None: none does clearly.

    Args:
        losses: Order to the loss of each token of the text, in nats.
        vocab_size: Of the model.
    """
    best = min(losses, key=lambda layout: losses[layout].mean())
    others = [loss - losses[best] for layout, loss in losses.items() if layout != best]
    margins = [math.log(vocab_size) - losses[best], *others]
    return best if all(_clear(margin) for margin in margins) else None


def _clear(margin: Losses) -> bool:
    error = margin.std(ddof=1) / math.sqrt(len(margin))
    return bool(margin.mean() > _ENOUGH * error)


def _probe(source: GgufSource, plan: ModelPlan) -> tuple[str, str]:
    """The order, and how it was found in words."""
    mend = f"say which with 'bitinfer convert --i2s-layout {'|'.join(LAYOUT_NAMES)}'"
    token_ids = source.encode(_PROBE)
    if len(token_ids) < 2:
        raise CheckpointError(
            f"{source.path}: the byte order of its I2_S tensors cannot be found, as it has no"
            f" tokenizer: {mend}"
        )
    floats = _floats(source, plan)
    losses: dict[str, Losses] = {}
    for layout in I2S_LAYOUTS:
        source.i2s_layout = layout
        try:
            losses[layout] = _losses(source, plan, floats, token_ids)
        except CheckpointError:
            if layout == I2S_LAYOUTS[-1] and not losses:
                raise  # no order fits: the file is damaged
    best = clearly_lowest(losses, plan.spec["vocab_size"])
    if best is None:
        means = ", ".join(f"{layout} {loss.mean():.2f}" for layout, loss in losses.items())
        raise CheckpointError(
            f"{source.path}: the byte order of its I2_S tensors cannot be told, as none reads a"
            f" text clearly best (loss a token: {means}): {mend}"
        )
    return best, "found by reading a text in each"


def _losses(
    source: GgufSource, plan: ModelPlan, floats: Mapping[str, Any], token_ids: list[int]
) -> Losses:
    """The loss of each token but the first, with the weights as they are read now."""
    weights = dict(floats)
    for w in plan.ternary:
        matrix = source.trits(w.stored)
        weights[w.name] = (_core.pack(matrix.trits, "i2"), "i2", (w.n, w.k))
        weights[f"{w.name}_scale"] = (matrix.scales.view(np.uint8), "f32", matrix.scales.shape)
    spec = {**plan.spec, "head": "source"}
    decoder = _core.Decoder(spec, weights, runtime.num_threads())
    ids = np.array(token_ids, np.int32)
    logits = decoder.forward([ids], [decoder.new_cache(len(ids), "f32")], "all")
    return token_losses(logits[:-1], ids[1:])


def _floats(source: GgufSource, plan: ModelPlan) -> dict[str, Any]:
    """All tensors but the projections, as the decoder takes them."""
    stored = dict(plan.floats)
    if not plan.spec["tie_word_embeddings"]:
        stored[HEAD] = plan.head
    table = inv_freq(source.config)
    floats: dict[str, Any] = {"rope.inv_freq": (table.view(np.uint8), "f32", table.shape)}
    for name, own in stored.items():
        tensor = source.tensors[own]
        floats[name] = (source.view(own), tensor.dtype.lower(), tensor.shape)
    return floats
