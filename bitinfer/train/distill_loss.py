"""What a student of BitDistill learns from: the labels, its teacher's logits and relations.

    loss = cross_entropy_weight * CE(labels, student)
         + logits_weight        * KL(softmax(teacher / t) || softmax(student / t))
         + relation_weight      * mean KL(teacher's relation || student's), Q-Q, K-K and V-V

The first two are means over the tokens to be learned, the third over all tokens. A weight of 0
leaves its part out altogether. Source: arXiv 2510.13998, equations 8 to 13; as there, the second
part is not multiplied by t^2.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from bitinfer.train.data import IGNORED
from bitinfer.train.distill_config import LossWeights
from bitinfer.train.relations import (
    AttentionTap,
    check_relation_heads,
    projections,
    relation_loss,
)
from bitinfer.train.run import split_rows


def check_weights(weights: LossWeights, student: PreTrainedModel, teacher: PreTrainedModel) -> int:
    """The number of relation heads, or 1 if relations do not count.

    Raises:
        ValueError: there is no such layer, or the relation heads do not divide what they split.
    """
    if not weights.relation:
        return 1
    heads = weights.relation_heads
    heads = teacher.config.num_key_value_heads if heads is None else heads
    check_relation_heads(heads, *(projections(m, weights.layer) for m in (student, teacher)))
    return heads


class DistillLoss:
    """The loss of a student on a batch; a ``loss_fn`` of the training loop."""

    def __init__(
        self, student: PreTrainedModel, teacher: PreTrainedModel, weights: LossWeights
    ) -> None:
        """Listen to both models.

        Args:
            student: Not yet compiled or made parallel.
            teacher: Never trained here; of the student's vocabulary.
            weights: See there.

        Raises:
            ValueError: see ``check_weights``.
        """
        self._heads = check_weights(weights, student, teacher)
        self._teacher, self._weights = teacher, weights
        models = (student, teacher) if weights.relation else ()
        self._taps = [AttentionTap(model, weights.layer) for model in models]

    def __call__(self, model: nn.Module, rows: Tensor) -> Tensor:
        """The loss of ``model``, the student as it is run, on rows of tokens.

        Args:
            model: The student, or what wraps it.
            rows: int64, as ``split_rows`` takes them.
        """
        weights = self._weights
        ids, labels, present = split_rows(rows)
        wanted = labels != IGNORED
        taught = self._teach(ids)
        logits = model(input_ids=ids, use_cache=False).logits[wanted].float()
        loss = logits.new_zeros(())
        if weights.cross_entropy:
            loss = loss + weights.cross_entropy * functional.cross_entropy(logits, labels[wanted])
        if taught is not None:
            part = logits_loss(logits, taught[wanted], weights.temperature)
            loss = loss + weights.logits * part
        if self._taps:
            ours, theirs = (tap.take() for tap in self._taps)
            loss = loss + weights.relation * relation_loss(ours, theirs, self._heads, present)
        return loss

    @torch.no_grad()
    def _teach(self, ids: Tensor) -> Tensor | None:
        """Run the teacher, no further than is needed; its logits where they count."""
        if self._teacher.device != ids.device:
            self._teacher.to(ids.device)
        if self._weights.logits:
            logits: Tensor = self._teacher(input_ids=ids, use_cache=False).logits
            return logits
        if self._weights.relation:
            self._teacher.base_model(input_ids=ids, use_cache=False)
        return None


def logits_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Mean over tokens of ``KL(softmax(teacher / t) || softmax(student / t))``, fp32.

    Args:
        student, teacher: Logits, ``(tokens, vocab_size)``.
        temperature: Above 0.

    Returns:
        Scalar, 0 where both are the same up to a constant for each token.
    """
    ours, theirs = ((logits.float() / temperature).log_softmax(-1) for logits in (student, teacher))
    return (theirs.exp() * (theirs - ours)).sum(-1).mean()
