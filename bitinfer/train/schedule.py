"""Learning rate and weight decay of each step: the two-stage recipe of BitNet b1.58.

With t = step / steps, step from 0, and P the peak of the stage that the step is in::

    learning rate = P * (1 - t) * min(1, (step + 1) / warmup_steps)
    weight decay  = that of the stage

So each stage follows a line to zero at the end of the run, and the second a lower one: at half of
the steps the rate falls from 0.5 of the first peak to 0.5 of the second, and the decay to 0.

Source: Ma et al., The Era of 1-bit LLMs: Training Tips, Code and FAQ (microsoft/unilm, bitnet).
"""

from __future__ import annotations

from bitinfer.train.config import TrainConfig


def in_second_stage(config: TrainConfig, step: int) -> bool:
    """Whether ``step`` (from 0) belongs to stage two."""
    return step >= config.stage_2_from * config.steps


def learning_rate(config: TrainConfig, step: int) -> float:
    """Of ``step``, from 0."""
    peak = config.learning_rate_2 if in_second_stage(config, step) else config.learning_rate
    warm = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    return peak * (1 - step / config.steps) * warm


def weight_decay(config: TrainConfig, step: int) -> float:
    """Of ``step``, from 0; for matrices only."""
    return config.weight_decay_2 if in_second_stage(config, step) else config.weight_decay
