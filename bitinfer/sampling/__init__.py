"""From logits to the next token; docs/sampling.md defines every step by its formula."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from bitinfer.sampling.params import (
    MOST_LOGPROBS,
    SETTINGS,
    SamplingParams,
    check_setting,
    setting_from_text,
)

if TYPE_CHECKING:
    from bitinfer.sampling.logprobs import TokenLogprob
    from bitinfer.sampling.penalties import DRY_BREAKERS, dry_breaks
    from bitinfer.sampling.sampler import ChooseToken, Constraint, LogitsProcessor, Sampler, greedy

__all__ = [
    "DRY_BREAKERS",
    "MOST_LOGPROBS",
    "SETTINGS",
    "ChooseToken",
    "Constraint",
    "LogitsProcessor",
    "Sampler",
    "SamplingParams",
    "TokenLogprob",
    "check_setting",
    "dry_breaks",
    "greedy",
    "setting_from_text",
]

# Imported only when asked for, since they need NumPy: a help text shows the settings without it.
_LATE = {
    "ChooseToken": "sampler",
    "Constraint": "sampler",
    "DRY_BREAKERS": "penalties",
    "LogitsProcessor": "sampler",
    "Sampler": "sampler",
    "TokenLogprob": "logprobs",
    "dry_breaks": "penalties",
    "greedy": "sampler",
}


def __getattr__(name: str) -> Any:
    """Import a name of ``_LATE``."""
    if name in _LATE:
        return getattr(import_module(f"bitinfer.sampling.{_LATE[name]}"), name)
    raise AttributeError(f"module 'bitinfer.sampling' has no attribute {name!r}")
