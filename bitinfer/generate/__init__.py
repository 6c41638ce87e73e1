"""From a prompt's token ids to text: the loop, what it makes, when it ends, and its options."""

from bitinfer.generate.options import (
    SPECULATE,
    GenerateOptions,
    Request,
    SamplingOptions,
    Speculate,
    checked_speculate,
)
from bitinfer.generate.reply import Completion, FinishReason, Reply, Usage
from bitinfer.generate.setup import Setup
from bitinfer.generate.steps import (
    check_prompt,
    generate_many,
    generate_step,
    most_candidates,
    take_token,
)
from bitinfer.generate.stopping import StopRules, StopStrings
from bitinfer.generate.stream import TextStream

__all__ = [
    "SPECULATE",
    "Completion",
    "FinishReason",
    "GenerateOptions",
    "Reply",
    "Request",
    "SamplingOptions",
    "Setup",
    "Speculate",
    "StopRules",
    "StopStrings",
    "TextStream",
    "Usage",
    "check_prompt",
    "checked_speculate",
    "generate_many",
    "generate_step",
    "most_candidates",
    "take_token",
]
