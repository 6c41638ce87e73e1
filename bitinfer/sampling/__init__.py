"""From logits to the next token; docs/sampling.md defines every step by its formula."""

from bitinfer.sampling.logprobs import MOST_LOGPROBS, TokenLogprob
from bitinfer.sampling.params import SETTINGS, SamplingParams, check_setting, setting_from_text
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
