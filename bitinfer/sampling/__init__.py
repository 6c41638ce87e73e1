"""From logits to the next token; docs/sampling.md defines every step by its formula."""

from bitinfer.sampling.params import SETTINGS, SamplingParams, check_setting, setting_from_text
from bitinfer.sampling.sampler import Sampler, candidates, greedy, make_sampler

__all__ = [
    "SETTINGS",
    "Sampler",
    "SamplingParams",
    "candidates",
    "check_setting",
    "greedy",
    "make_sampler",
    "setting_from_text",
]
