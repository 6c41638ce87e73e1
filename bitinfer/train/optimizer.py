"""The optimizers of a run: AdamW, or Muon for the projections and AdamW for the rest."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

_BETAS = (0.9, 0.95)  # of Adam, as in the recipe of b1.58
_MOMENTUM = 0.95  # of Muon


class Optimizers:
    """Optimizers of different parameters, used as one."""

    def __init__(self, *optimizers: torch.optim.Optimizer) -> None:
        self._optimizers = optimizers

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Groups of all; what is set in one counts for the next step."""
        return [group for optimizer in self._optimizers for group in optimizer.param_groups]

    def step(self) -> None:
        """Change the parameters by their gradients."""
        for optimizer in self._optimizers:
            optimizer.step()

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for optimizer in self._optimizers:
            optimizer.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        """State of each, by the name of its class."""
        return {type(each).__name__: each.state_dict() for each in self._optimizers}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        for optimizer in self._optimizers:
            optimizer.load_state_dict(state[type(optimizer).__name__])


def new_optimizer(kind: str, model: nn.Module) -> Optimizers:
    """Optimizers of a model's parameters; each group says in ``decays`` whether it decays.

    Matrices decay, norms and biases do not. Muon takes the matrices but the embedding and the head,
    with steps as large as AdamW's (arXiv 2502.16982), so that one learning rate does for all.

    Args:
        kind: ``adamw`` or ``muon``.
        model: A causal model of transformers.
    """
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    muon = _inner_matrices(model, learned) if kind == "muon" else []
    taken = set(map(id, muon))
    rest = [parameter for parameter in learned if id(parameter) not in taken]
    groups = [
        {"params": [p for p in rest if (p.ndim > 1) == decays], "decays": decays}
        for decays in (True, False)
    ]
    adamw = torch.optim.AdamW(groups, betas=_BETAS, fused=True)
    if not muon:
        return Optimizers(adamw)
    group = {"params": muon, "decays": True}
    return Optimizers(
        torch.optim.Muon([group], momentum=_MOMENTUM, adjust_lr_fn="match_rms_adamw"), adamw
    )


def _inner_matrices(model: Any, learned: Iterable[nn.Parameter]) -> list[nn.Parameter]:
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    outer = {id(end.weight) for end in ends if end is not None}
    return [p for p in learned if p.ndim == 2 and id(p) not in outer]
