"""Speculative decoding without loss: drafts of the next tokens, and when they pay.

A draft never changes a token, only how many the model runs at a time (docs/speculation.md).
"""

from bitinfer.speculation.draft_model import DraftModel, check_vocabulary
from bitinfer.speculation.pace import Pace
from bitinfer.speculation.prompt_lookup import PromptLookup
from bitinfer.speculation.speculator import DraftSource, Speculator

__all__ = [
    "DraftModel",
    "DraftSource",
    "Pace",
    "PromptLookup",
    "Speculator",
    "check_vocabulary",
]
